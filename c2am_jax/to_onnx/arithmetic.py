"""Operations of one element at a time, and sums over axes, as ONNX operators.

A rule is ``(graph, equation, *inputs) -> result``, or a list of results; RULES has them by JAX's name of the operation.
"""

from typing import Any

import numpy as np

from c2am_jax.to_onnx.graph import Graph, Value, ints, onnx_type


def _same(name: str) -> Any:
    """A rule for what ONNX has under another name."""
    return lambda graph, equation, *inputs: graph.add(name, *inputs)


def scalar(equation: Any, number: float) -> np.ndarray:
    """`number` in the type of an equation's first input."""
    return np.array(number, equation.invars[0].aval.dtype)


def cast(graph: Graph, value: Value, dtype: Any) -> str:
    """`value` in another type."""
    return graph.add("Cast", value, to=onnx_type(dtype))


def is_bool(variable: Any) -> bool:
    """Whether a variable of a jaxpr holds booleans."""
    return variable.aval.dtype == np.bool_


def _boolean_or_bits(name: str) -> Any:
    return lambda graph, equation, *inputs: graph.add(
        name if is_bool(equation.outvars[0]) else f"Bitwise{name}", *inputs
    )


def _convert(graph: Graph, equation: Any, x: Value) -> Value:
    source, target = (v.aval.dtype for v in (equation.invars[0], equation.outvars[0]))
    return x if source == target else cast(graph, x, target)


def chosen(graph: Graph, which: Value, true: Value, false: Value, dtype: Any) -> str:
    """`true` where `which`, else `false`. onnxruntime has no Where of booleans."""
    if dtype != np.bool_:
        return graph.add("Where", which, true, false)
    return graph.add("Or", graph.add("And", which, true), graph.add("And", graph.add("Not", which), false))


def any_true(graph: Graph, x: Value) -> str:
    """Whether any of the booleans is True."""
    return cast(graph, graph.add("ReduceMax", cast(graph, x, np.uint8), keepdims=0), np.bool_)


def _select(graph: Graph, equation: Any, which: Value, *cases: Value) -> str:
    if len(cases) != 2 or not is_bool(equation.invars[0]):
        raise NotImplementedError("a choice among more than two arrays")
    return chosen(graph, which, cases[1], cases[0], equation.outvars[0].aval.dtype)


def _remainder(graph: Graph, equation: Any, x: Value, y: Value) -> str:
    return graph.add("Mod", x, y, fmod=1)  # the sign of x, as in C


def _clamp(graph: Graph, equation: Any, low: Value, x: Value, high: Value) -> str:
    return graph.add("Min", graph.add("Max", x, low), high)


def _round(graph: Graph, equation: Any, x: Value) -> str:
    if int(equation.params["rounding_method"]) != 1:
        raise NotImplementedError("rounding halves away from zero")
    return graph.add("Round", x)


def _is_finite(graph: Graph, equation: Any, x: Value) -> str:
    return graph.add("Not", graph.add("Or", graph.add("IsInf", x), graph.add("IsNaN", x)))


def _reduce(name: str) -> Any:
    def rule(graph: Graph, equation: Any, x: Value) -> str:
        return graph.add(name, x, ints(*equation.params["axes"]), keepdims=0)

    return rule


def _reduce_boolean(name: str) -> Any:
    """`any` is the greatest of 0 and 1, `all` the least."""

    def rule(graph: Graph, equation: Any, x: Value) -> str:
        axes = ints(*equation.params["axes"])
        if not is_bool(equation.invars[0]):
            raise NotImplementedError("bits of whole numbers over an axis")
        return cast(graph, graph.add(name, cast(graph, x, np.uint8), axes, keepdims=0), np.bool_)

    return rule


def _arg(name: str) -> Any:
    def rule(graph: Graph, equation: Any, x: Value) -> str:
        (axis,) = equation.params["axes"]
        if is_bool(equation.invars[0]):
            x = cast(graph, x, np.int32)
        return cast(graph, graph.add(name, x, axis=axis, keepdims=0), equation.outvars[0].aval.dtype)

    return rule


def _cumulative_sum(graph: Graph, equation: Any, x: Value) -> str:
    axis = np.array(equation.params["axis"], np.int64)
    return graph.add("CumSum", x, axis, reverse=int(equation.params["reverse"]))


def _kept(graph: Graph, equation: Any, *inputs: Value) -> list[Value]:
    return list(inputs)


RULES = {
    "abs": _same("Abs"),
    "add": _same("Add"),
    "add_any": _same("Add"),
    "and": _boolean_or_bits("And"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "acos": _same("Acos"),
    "asin": _same("Asin"),
    "atan": _same("Atan"),
    "ceil": _same("Ceil"),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "copy": _kept,
    "cos": _same("Cos"),
    "cumsum": _cumulative_sum,
    "div": _same("Div"),
    "eq": _same("Equal"),
    "erf": _same("Erf"),
    "exp": _same("Exp"),
    "expm1": lambda graph, equation, x: graph.add("Sub", graph.add("Exp", x), scalar(equation, 1)),
    "floor": _same("Floor"),
    "ge": _same("GreaterOrEqual"),
    "gt": _same("Greater"),
    "integer_pow": lambda graph, equation, x: graph.add("Pow", x, scalar(equation, equation.params["y"])),
    "is_finite": _is_finite,
    "le": _same("LessOrEqual"),
    "log": _same("Log"),
    "log1p": lambda graph, equation, x: graph.add("Log", graph.add("Add", x, scalar(equation, 1))),
    "log2": lambda graph, equation, x: graph.add("Div", graph.add("Log", x), scalar(equation, np.log(2))),
    "logistic": _same("Sigmoid"),
    "lt": _same("Less"),
    "max": lambda graph, equation, x, y: graph.add("Or" if is_bool(equation.invars[0]) else "Max", x, y),
    "min": lambda graph, equation, x, y: graph.add("And" if is_bool(equation.invars[0]) else "Min", x, y),
    "mul": lambda graph, equation, x, y: graph.add("And" if is_bool(equation.invars[0]) else "Mul", x, y),
    "ne": lambda graph, equation, x, y: graph.add("Not", graph.add("Equal", x, y)),
    "neg": _same("Neg"),
    "not": _boolean_or_bits("Not"),
    "optimization_barrier": _kept,
    "or": _boolean_or_bits("Or"),
    "pow": _same("Pow"),
    "reduce_and": _reduce_boolean("ReduceMin"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce_boolean("ReduceMax"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "rem": _remainder,
    "round": _round,
    "rsqrt": lambda graph, equation, x: graph.add("Div", scalar(equation, 1), graph.add("Sqrt", x)),
    "select_n": _select,
    "sign": _same("Sign"),
    "sin": _same("Sin"),
    "sqrt": _same("Sqrt"),
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "stop_gradient": _kept,
    "sub": _same("Sub"),
    "tan": _same("Tan"),
    "tanh": _same("Tanh"),
    "xor": _boolean_or_bits("Xor"),
}
