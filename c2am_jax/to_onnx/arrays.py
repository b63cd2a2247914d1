"""Shapes, slices, order and indices as ONNX operators; rules as in `arithmetic`."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from c2am_jax.to_onnx.arithmetic import cast, is_bool
from c2am_jax.to_onnx.graph import Graph, Value, ints


def reshaped(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    """`x` in another shape."""
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    return graph.add("Reshape", x, ints(*shape), allowzero=1)


def transposed(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """`x` with its axes in `order`."""
    if list(order) == list(range(len(order))):
        return x
    if isinstance(x, np.ndarray):
        return x.transpose(order)
    return graph.add("Transpose", x, perm=list(order))


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(int(length) for length in variable.aval.shape)


def _to_result_shape(graph: Graph, equation: Any, x: Value) -> Value:
    return reshaped(graph, x, _shape(equation.outvars[0]))


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    shape = _shape(equation.outvars[0])
    axes = equation.params["broadcast_dimensions"]
    ready = reshaped(
        graph, x, [_shape(equation.invars[0])[axes.index(d)] if d in axes else 1 for d in range(len(shape))]
    )
    return ready if np.prod(shape) == np.prod(_shape(equation.invars[0])) else graph.add("Expand", ready, ints(*shape))


def _transpose(graph: Graph, equation: Any, x: Value) -> Value:
    return transposed(graph, x, equation.params["permutation"])


def _concatenate(graph: Graph, equation: Any, *parts: Value) -> str:
    return graph.add("Concat", *parts, axis=equation.params["dimension"])


def _stack(graph: Graph, equation: Any, *parts: Value) -> str:
    axis, shape = equation.params["axis"], list(_shape(equation.outvars[0]))
    return graph.add("Concat", *(reshaped(graph, x, [*shape[:axis], 1, *shape[axis + 1 :]]) for x in parts), axis=axis)


def _unstack(graph: Graph, equation: Any, x: Value) -> list[str]:
    axis = equation.params["axis"]
    return [graph.add("Gather", x, np.array(i, np.int64), axis=axis) for i in range(len(equation.outvars))]


def _split(graph: Graph, equation: Any, x: Value) -> list[str]:
    sizes = equation.params["sizes"]
    return graph.add_many("Split", len(sizes), x, ints(*sizes), axis=equation.params["axis"])


def _tile(graph: Graph, equation: Any, x: Value) -> str:
    return graph.add("Tile", x, ints(*equation.params["reps"]))


def _iota(graph: Graph, equation: Any) -> str:
    shape, axis = _shape(equation.outvars[0]), equation.params["dimension"]
    steps = np.arange(shape[axis]).astype(equation.outvars[0].aval.dtype)
    steps = steps.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return graph.add("Expand", steps, ints(*shape))


def _pad(graph: Graph, equation: Any, x: Value, fill: Value) -> Value:
    low, high, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise NotImplementedError("padding between elements")
    axes = list(range(len(low)))
    if min(*low, *high) < 0:  # cut first
        length = np.array(_shape(equation.invars[0]))
        x = _sliced(graph, x, -np.minimum(low, 0), length + np.minimum(high, 0), axes, [1] * len(axes))
    return graph.add("Pad", x, ints(*np.maximum(low, 0), *np.maximum(high, 0)), fill)


def _sliced(graph: Graph, x: Value, starts: Any, ends: Any, axes: Any, steps: Any) -> str:
    return graph.add("Slice", x, ints(*starts), ints(*ends), ints(*axes), ints(*steps))


def _slice(graph: Graph, equation: Any, x: Value) -> str:
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    return _sliced(graph, x, starts, ends, range(len(starts)), equation.params["strides"] or [1] * len(starts))


def _reverse(graph: Graph, equation: Any, x: Value) -> str:
    axes = equation.params["dimensions"]
    least = np.iinfo(np.int64).min
    return _sliced(graph, x, [-1] * len(axes), [least] * len(axes), axes, [-1] * len(axes))


def _dynamic_slice(graph: Graph, equation: Any, x: Value, *starts: Value) -> str:
    sizes, shape = ints(*equation.params["slice_sizes"]), ints(*_shape(equation.invars[0]))
    at = graph.add("Concat", *(reshaped(graph, cast(graph, start, np.int64), [1]) for start in starts), axis=0)
    at = _clamped(graph, at, shape - sizes)
    return graph.add("Slice", x, at, graph.add("Add", at, sizes), ints(*range(len(sizes))))


def _clamped(graph: Graph, index: Value, last: np.ndarray) -> str:
    return graph.add("Min", graph.add("Max", index, ints(0)), last)


def _gather(graph: Graph, equation: Any, x: Value, index: Value) -> Value:
    """Windows of an array: rows of it by number, where a row is what every window takes whole of the last axes."""
    numbers, sizes, mode = (equation.params[name] for name in ("dimension_numbers", "slice_sizes", "mode"))
    shape, batch = _shape(equation.invars[0]), _shape(equation.invars[1])[:-1]
    single = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    lead = len(shape)
    while lead and lead - 1 not in {*single, *numbers.start_index_map} and sizes[lead - 1] == shape[lead - 1]:
        lead -= 1
    steps = [int(np.prod(shape[d + 1 : lead])) for d in range(lead)]  # rows from one index of an axis to the next

    start = cast(graph, index, np.int64)
    last = ints(*(shape[d] - sizes[d] for d in numbers.start_index_map))
    inside = _clamped(graph, start, last)
    row = graph.add("Mul", inside, ints(*(steps[d] for d in numbers.start_index_map)))
    row = graph.add("ReduceSum", row, ints(-1), keepdims=0)
    for axis, place in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        images = [-1 if d == place else 1 for d in range(len(batch))]
        row = graph.add("Add", row, ints(*(steps[axis] * np.arange(shape[axis]))).reshape(images))
    window = [d for d in range(lead) if d not in single]
    if window:
        offsets = sum(steps[d] * np.arange(sizes[d]).reshape([-1 if e == d else 1 for e in window]) for d in window)
        row = graph.add("Add", reshaped(graph, row, [*batch, *(1 for _ in window)]), np.asarray(offsets, np.int64))
    found = graph.add("Gather", reshaped(graph, x, [int(np.prod(shape[:lead])), *shape[lead:]]), row, axis=0)

    if mode == jax.lax.GatherScatterMode.FILL_OR_DROP:
        equal = cast(graph, graph.add("Equal", start, inside), np.uint8)
        whole = cast(graph, graph.add("ReduceMin", equal, ints(-1), keepdims=0), np.bool_)
        whole = reshaped(graph, whole, [*batch, *(1 for _ in numbers.offset_dims)])
        found = _filled(graph, equation, found, whole)
    ends = [d for d in range(len(_shape(equation.outvars[0]))) if d not in numbers.offset_dims]
    return transposed(graph, found, np.argsort([*ends, *numbers.offset_dims]).tolist())


def _filled(graph: Graph, equation: Any, found: Value, whole: Value) -> str:
    """`found` where the window lies inside; elsewhere JAX's value for indices that do not exist."""
    dtype, fill = equation.outvars[0].aval.dtype, equation.params["fill_value"]
    if dtype == np.bool_:
        return (
            graph.add("Or", found, graph.add("Not", whole)) if fill in (None, True) else graph.add("And", found, whole)
        )
    if fill is None:
        fill = np.nan if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max
    return graph.add("Where", whole, found, np.array(fill, dtype))


def _top_k(graph: Graph, equation: Any, x: Value) -> list[str]:
    """Of equal values both take the lower index first."""
    axis = equation.params.get("axis", -1)
    values, index = graph.add_many("TopK", 2, x, ints(equation.params["k"]), axis=axis)
    return [values, cast(graph, index, equation.outvars[1].aval.dtype)]


def _sort(graph: Graph, equation: Any, key: Value, *others: Value) -> list[str]:
    """Ascending by one key; stable, as `_top_k` is."""
    if equation.params["num_keys"] != 1 or is_bool(equation.invars[0]):
        raise NotImplementedError("sorting by several keys or by booleans")
    axis = equation.params["dimension"]
    length = ints(_shape(equation.invars[0])[axis])
    ordered, index = graph.add_many("TopK", 2, key, length, axis=axis, largest=0)
    return [ordered, *(graph.add("GatherElements", other, index, axis=axis) for other in others)]


RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "expand_dims": _to_result_shape,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": _to_result_shape,
    "rev": _reverse,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "squeeze": _to_result_shape,
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
}
