"""Products, convolutions and windows as ONNX operators; rules as in `arithmetic`.

ONNX's convolutions have channels before positions. onnxruntime cancels the transposes of one layer against those of
the next.
"""

from typing import Any

import numpy as np

from c2am_jax.to_onnx.arrays import reshaped, transposed
from c2am_jax.to_onnx.graph import Graph, Value


def _dot_general(graph: Graph, equation: Any, left: Value, right: Value) -> Value:
    """[batch, own, summed] times [batch, summed, own]."""
    (left_summed, right_summed), (left_batch, right_batch) = equation.params["dimension_numbers"]
    if equation.outvars[0].aval.dtype.kind not in "fV":
        raise NotImplementedError("products of whole numbers")
    left_shape, right_shape = (v.aval.shape for v in equation.invars)
    left_own = [d for d in range(len(left_shape)) if d not in (*left_summed, *left_batch)]
    right_own = [d for d in range(len(right_shape)) if d not in (*right_summed, *right_batch)]

    def size(shape: Any, axes: Any) -> int:
        return int(np.prod([shape[d] for d in axes], dtype=np.int64))

    batch, summed = [left_shape[d] for d in left_batch], size(left_shape, left_summed)
    left = transposed(graph, left, [*left_batch, *left_own, *left_summed])
    right = transposed(graph, right, [*right_batch, *right_summed, *right_own])
    product = graph.add(
        "MatMul",
        reshaped(graph, left, [*batch, size(left_shape, left_own), summed]),
        reshaped(graph, right, [*batch, summed, size(right_shape, right_own)]),
    )
    return reshaped(graph, product, equation.outvars[0].aval.shape)


def _convolution(graph: Graph, equation: Any, x: Value, kernel: Value) -> Value:
    params = equation.params
    inputs, kernels, outputs = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise NotImplementedError("a convolution of an image with gaps")
    low, high = zip(*params["padding"], strict=True)
    found = graph.add(
        "Conv",
        transposed(graph, x, inputs),
        transposed(graph, kernel, kernels),
        strides=list(params["window_strides"]),
        pads=[int(cells) for cells in (*low, *high)],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return transposed(graph, found, np.argsort(outputs).tolist())


def _window_max(graph: Graph, equation: Any, x: Value) -> Value:
    """Windows over the middle axes of [B, H, W, C]."""
    params, order = equation.params, [0, 3, 1, 2]
    window, strides, padding = (params[name] for name in ("window_dimensions", "window_strides", "padding"))
    if (
        len(window) != 4
        or (window[0], window[3]) != (1, 1)
        or {*params["base_dilation"], *params["window_dilation"]} != {1}
    ):
        raise NotImplementedError("windows over other axes than those of an image's positions")
    low, high = zip(*padding[1:3], strict=True)
    found = graph.add(
        "MaxPool",
        transposed(graph, x, order),
        kernel_shape=list(window[1:3]),
        strides=list(strides[1:3]),
        pads=[int(cells) for cells in (*low, *high)],
    )
    return transposed(graph, found, [0, 2, 3, 1])


def _roi_align(graph: Graph, equation: Any, feature: Value, boxes: Value) -> Value:
    """[B, H, W, C] and [B, R, 4] -> [B, R, out, out, C]."""
    params, (batch, rois, _) = equation.params, equation.invars[1].aval.shape
    found = graph.add(
        "RoiAlign",
        transposed(graph, feature, [0, 3, 1, 2]),
        reshaped(graph, boxes, [batch * rois, 4]),
        np.repeat(np.arange(batch), rois),
        coordinate_transformation_mode="half_pixel",
        mode="avg",
        output_height=params["out"],
        output_width=params["out"],
        sampling_ratio=0,
        spatial_scale=1 / params["stride"],
    )
    return reshaped(graph, transposed(graph, found, [0, 2, 3, 1]), equation.outvars[0].aval.shape)


RULES = {
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "reduce_window_max": _window_max,
    "roi_align": _roi_align,
}
