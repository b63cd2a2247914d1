"""A jaxpr as an ONNX graph, its loops and branches as Loop and If."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core

from c2am_jax.errors import UserError
from c2am_jax.to_onnx import arithmetic, arrays, products
from c2am_jax.to_onnx.graph import Graph, Value, ints, model

INSTEAD = "--format stablehlo takes every operation"


def convert(
    function: Callable[..., dict[str, jax.Array]], arguments: dict[str, jax.ShapeDtypeStruct]
) -> onnx.ModelProto:
    """The ONNX model of ``function(*arguments)``; inputs have the arguments' names, outputs those of the result.

    Raises:
      UserError: an operation that has no rule here; the line names it.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments.values())
    graph = Graph()
    found = _lower(graph, program.jaxpr, program.consts, list(arguments))
    for name, value in jax.tree.unflatten(jax.tree.structure(shapes), found).items():
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.held(value)], [name]))
    inputs, outputs = (
        [(name, aval.dtype, aval.shape) for name, aval in values.items()] for values in (arguments, shapes)
    )
    return model(graph.body(inputs, outputs))


def _lower(graph: Graph, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """The results of a jaxpr, its operations appended to the graph."""
    values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= {v: np.asarray(constant) for v, constant in zip(jaxpr.constvars, constants, strict=True)}

    def read(variable: Any) -> Value:
        if isinstance(variable, core.Literal):
            aval: Any = variable.aval
            return np.asarray(variable.val, aval.dtype)
        return values[variable]

    for equation in _needed(jaxpr):
        results = _results(graph, equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _needed(jaxpr: Any) -> Iterator[Any]:
    """The equations on which the results depend, in order."""
    wanted = {variable for variable in jaxpr.outvars if not isinstance(variable, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted |= {variable for variable in equation.invars if not isinstance(variable, core.Literal)}
    return reversed(kept)


def _results(graph: Graph, equation: Any, inputs: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if name in RULES:
        try:
            found = RULES[name](graph, equation, *inputs)
        except NotImplementedError as error:
            raise UserError(f"--format onnx has no rule for {error} ({name}); {INSTEAD}") from None
        return found if isinstance(found, list) else [found]
    inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params), None)
    if inner is None:
        raise UserError(f"--format onnx has no rule for JAX's operation {name}; {INSTEAD}")
    return _lower(graph, *_parts(inner), inputs)  # a function that is called


def _parts(inner: Any) -> tuple[Any, Sequence[Any]]:
    return (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())


def _described(names: Sequence[str], variables: Sequence[Any]) -> list[tuple[str, Any, Sequence[int]]]:
    return [(name, v.aval.dtype, v.aval.shape) for name, v in zip(names, variables, strict=True)]


def _owned(graph: Graph, values: Sequence[Value]) -> list[str]:
    """Results of a body are values of its own."""
    return [graph.add("Identity", value) for value in values]


def _loop(
    graph: Graph,
    start: Sequence[Value],
    carried: Sequence[Any],
    step: Callable[[Graph, str, list[Value]], tuple[Value, Sequence[Value], Sequence[Value]]],
    *,
    collected: Sequence[Any] = (),
    times: int | None = None,
    condition: Value | None = None,
) -> list[str]:
    """ONNX's Loop: ``step(body, number, state) -> (whether to go on, new state, what is collected)``.

    Args:
      graph: where the loop stands.
      start: state at first.
      carried: variables of the jaxpr for the state's types.
      step: appends one step to the body.
      collected: variables for the types of what is collected.
      times: most steps.
      condition: whether there is a first step.
    """
    body = graph.child()
    number, going = body.name(), body.name()
    state = [body.name() for _ in start]
    goes_on, after, rows = step(body, number, list(state))
    results = _owned(body, [goes_on, *after, *rows])
    scalars = [(number, np.int64, ()), (going, np.bool_, ())]
    inputs = scalars + _described(state, carried)
    outputs = [(results[0], np.bool_, ()), *_described(results[1:], [*carried, *collected])]
    limit = None if times is None else np.array(times, np.int64)
    return graph.add_many("Loop", len(results) - 1, limit, condition, *start, body=body.body(inputs, outputs))


def _of_scan(params: Mapping[str, Any], inputs: Sequence[Value]) -> tuple[int, int]:
    """How many of a scan's inputs are the same in every step, and how many are its state."""
    if "ft_in" in params:  # from jax 0.12 on
        fixed, state, _ = (len(list(part)) for part in params["ft_in"].update(inputs).unpack())
        return fixed, state
    return params["num_consts"], params["num_carry"]


def _scan(graph: Graph, equation: Any, *inputs: Value) -> list[str]:
    params = equation.params
    fixed, state = _of_scan(params, inputs)
    carry = fixed + state
    jaxpr, constants = _parts(params["jaxpr"])

    def step(body: Graph, number: str, carried: list[Value]):
        if params["reverse"]:
            number = body.add("Sub", np.array(params["length"] - 1, np.int64), number)
        rows = [body.add("Gather", table, number, axis=0) for table in inputs[carry:]]
        found = _lower(body, jaxpr, constants, [*inputs[:fixed], *carried, *rows])
        return np.array(True), found[:state], found[state:]

    results = _loop(
        graph,
        inputs[fixed:carry],
        jaxpr.outvars[:state],
        step,
        collected=jaxpr.outvars[state:],
        times=params["length"],
    )
    if params["reverse"]:
        back = ints(*range(params["length"] - 1, -1, -1))
        results[state:] = [graph.add("Gather", rows, back, axis=0) for rows in results[state:]]
    return results


def _while(graph: Graph, equation: Any, *inputs: Value) -> list[str]:
    params = equation.params
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body_program = _parts(params["cond_jaxpr"]), _parts(params["body_jaxpr"])

    carried = body_program[0].outvars

    def unfinished(where: Graph, state: Sequence[Value]) -> tuple[Value, Value]:
        """Which loops of a batch go on, and whether any does."""
        (own,) = _lower(where, *condition, [*inputs[:first], *state])
        if not condition[0].outvars[0].aval.shape:
            return own, own
        return own, arithmetic.any_true(where, own)

    def step(body: Graph, number: str, state: list[Value]):
        after = _lower(body, *body_program, [*inputs[first:second], *state])
        own = condition[0].outvars[0].aval
        if own.shape:  # what is done stays as it is
            going = unfinished(body, state)[0]
            after = [
                arithmetic.chosen(
                    body,
                    arrays.reshaped(body, going, [*own.shape, *(1 for _ in v.aval.shape[own.ndim :])]),
                    new,
                    old,
                    v.aval.dtype,
                )
                for v, new, old in zip(carried, after, state, strict=True)
            ]
        return unfinished(body, after)[1], after, ()

    start = inputs[second:]
    return _loop(graph, start, carried, step, condition=unfinished(graph, start)[1])


def _cond(graph: Graph, equation: Any, index: Value, *inputs: Value) -> list[str]:
    branches = [_parts(branch) for branch in equation.params["branches"]]
    if len(branches) != 2:
        raise NotImplementedError("a choice among more than two functions")

    def branch(number: int) -> onnx.GraphProto:
        body = graph.child()
        names = _owned(body, _lower(body, *branches[number], inputs))
        return body.body([], _described(names, branches[number][0].outvars))

    chosen = graph.add("Cast", index, to=onnx.TensorProto.BOOL)
    return graph.add_many("If", len(equation.outvars), chosen, then_branch=branch(1), else_branch=branch(0))


RULES: dict[str, Callable[..., Any]] = {
    **arithmetic.RULES,
    **arrays.RULES,
    **products.RULES,
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
