"""A function written in float32, computed in float64: its program (jaxpr) is evaluated with every float32 as float64.

Integers, booleans and narrower floats stay what they are. What arrives as an argument is widened exactly. A number that
stands in the program itself is taken as the shortest decimal that names its float32 value: 0.1 is 0.1 and not
0.10000000149.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

NARROW, WIDE = np.dtype(np.float32), np.dtype(np.float64)


def in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays, compiled, with float64 where it has float32; results are float64 too, and may go in again.

    The function itself is traced in float32, so choices that it makes by type are those of float32 (a floor of 1e-6,
    say). Large arrays are handed over: those that the function closes over become decimals one by one. Not for
    programs over a mesh, and not to be differentiated.
    """

    @jax.jit
    def evaluated(*arguments: Any) -> Any:
        narrow = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, _other(a.dtype, WIDE, NARROW)), arguments)
        with jax.enable_x64(False):
            program, result = jax.make_jaxpr(function, return_shape=True)(*narrow)
        found = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(result), found)

    def run(*arguments: Any) -> Any:
        with jax.enable_x64(True):
            return evaluated(*jax.tree.map(_widened, arguments))

    return run


def _other(dtype: Any, own: np.dtype, instead: np.dtype) -> Any:
    return instead if dtype == own else dtype


def _widened(array: Any) -> Any:
    return jnp.asarray(array, WIDE) if array.dtype == NARROW else array


def _constant(value: Any, dtype: Any) -> Any:
    """A number or an array that stands in the program."""
    if dtype != NARROW:
        return np.asarray(value, dtype) if np.isscalar(value) else value
    array = np.asarray(value)
    return array.astype(str).astype(WIDE) if array.dtype == NARROW else array


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr, in float64."""
    values: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    values |= {v: _constant(value, v.aval.dtype) for v, value in zip(jaxpr.constvars, constants, strict=True)}

    def read(variable: Any) -> Any:
        if isinstance(variable, core.Literal):
            aval: Any = variable.aval
            return _constant(variable.val, aval.dtype)
        return values[variable]

    for equation in jaxpr.eqns:
        found = _results(equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _results(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in ("custom_jvp_call", "custom_vjp_call"):  # of what has been differentiated, values alone count
        return _evaluate(*_parts(params["call_jaxpr"]), inputs)
    if primitive.name == "bitcast_convert_type":  # bits mean what they mean in float32
        own = (jnp.asarray(x, variable.aval.dtype) for x, variable in zip(inputs, equation.invars, strict=True))
        return [_widened(primitive.bind(*own, **params))]
    found = primitive.bind(*inputs, **{name: _parameter(value) for name, value in params.items()})
    return found if primitive.multiple_results else [found]


def _parts(program: Any) -> tuple[Any, Sequence[Any]]:
    return (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())


def _parameter(value: Any) -> Any:
    """What an operation is given beside its inputs: types and functions in float64, else as it is."""
    if isinstance(value, np.dtype):
        return _other(value, NARROW, WIDE)
    if isinstance(value, core.ClosedJaxpr):
        return _program(value)
    if isinstance(value, core.Jaxpr):
        return _program(value).jaxpr
    if isinstance(value, tuple) and any(isinstance(part, core.ClosedJaxpr) for part in value):
        return tuple(map(_parameter, value))
    return value


def _program(narrow: Any) -> Any:
    """The body of a loop, a branch or a function, in float64."""
    jaxpr, constants = _parts(narrow)
    types = [(v.aval.shape, _other(v.aval.dtype, NARROW, WIDE), v.aval.weak_type) for v in jaxpr.invars]
    shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]
    return jax.make_jaxpr(lambda *arguments: _evaluate(jaxpr, constants, arguments))(*shapes)
