"""RoIAlign with the reference's adaptive sampling grid, as two small matrices per RoI.

Averaging bilinear samples on a regular grid is separable: for one RoI the result is Wy . F . Wx^T with Wy [out, H] and
Wx [out, W]. The matrices depend on the box only, which carries no gradient, so the number of samples per bin can be
dynamic (reference: sampling_ratio 0) while every shape is static, and the backward pass is the transposed product.

Two backends, equal up to rounding:
  * "matmul": dense products with whole feature maps, RoIs in chunks; no gather, no scatter (GPU, TPU).
  * "window": loops over RoIs and reads only the tiles of the RoI's own level that its matrices touch (CPU: 3 to 12 times
    faster there, by benchmarks/roi_align.py).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.ops.varying import vary_like

TILE = 16  # cells per side of a window
CHUNK_ELEMENTS = 1 << 24  # bound on the intermediate of a chunk of RoIs in the matmul backend


def assign_levels(boxes: Float[Array, "*n 4"], *, finest_scale: int = 56, num_levels: int = 4) -> Int[Array, "*n"]:
    """Pyramid level of each RoI, 0 the finest: floor(log2(sqrt(area) / finest_scale + 1e-6)), clamped."""
    wh = boxes[..., 2:] - boxes[..., :2]
    scale = jnp.sqrt(jnp.maximum(wh[..., 0] * wh[..., 1], 0))
    return jnp.clip(jnp.floor(jnp.log2(scale / finest_scale + 1e-6)), 0, num_levels - 1).astype(jnp.int32)


def sampling_matrix(
    start: Float[Array, "*n"], length: Float[Array, "*n"], size: Int[Array, "*n"] | int, *, out: int, cells: int
) -> Float[Array, "*n out cells"]:
    """Weights of each cell in each of `out` bins along one axis.

    The bin average of ceil(length / out) samples of the linear interpolation; samples before -1 or behind `size`
    count as 0, others are clamped to [0, size - 1] (reference rule).

    Args:
      start: where the RoI begins, in cells (cell i is centred on i).
      length: its extent in cells; 0 or less gives zero weights.
      size: how many cells exist; the columns behind them are zero.
      out: bins.
      cells: columns of the result.
    """
    start, length = jax.lax.stop_gradient((start, length))
    count = jnp.maximum(jnp.ceil(length / out), 0)
    step = length / out
    last = jnp.asarray(size, start.dtype) - 1
    bins = jnp.arange(out, dtype=start.dtype)
    grid = jnp.arange(cells, dtype=start.dtype)

    def add_sample(k, weights):
        offset = (k + 0.5) * step / jnp.maximum(count, 1)
        at = start[..., None] + bins * step[..., None] + offset[..., None]
        inside = (at >= -1) & (at <= last[..., None] + 1) & (k < count)[..., None]
        at = jnp.clip(at, 0, last[..., None])
        hat = jnp.maximum(1 - jnp.abs(at[..., None] - grid), 0)
        return weights + jnp.where(inside[..., None], hat, 0)

    last = jnp.broadcast_to(last, start.shape)
    zeros = vary_like(jnp.zeros((*start.shape, out, cells), start.dtype), start)
    total = jax.lax.fori_loop(0, count.max().astype(jnp.int32), add_sample, zeros)
    return total / jnp.maximum(count, 1)[..., None, None]


def _matrices(boxes, levels, shapes, strides, out, pad):
    """Wy [n, out, Hmax + pad] and Wx [n, out, Wmax + pad] of each box on its own level."""
    scale = 1.0 / jnp.asarray(strides[: len(shapes)], jnp.float32)[levels]
    low = boxes[..., :2] * scale[..., None] - 0.5
    extent = (boxes[..., 2:] - boxes[..., :2]) * scale[..., None]
    heights, widths = (jnp.asarray(s, jnp.int32)[levels] for s in zip(*shapes, strict=True))
    tallest, widest = max(s[0] for s in shapes), max(s[1] for s in shapes)
    wy = sampling_matrix(low[..., 1], extent[..., 1], heights, out=out, cells=tallest + pad)
    wx = sampling_matrix(low[..., 0], extent[..., 0], widths, out=out, cells=widest + pad)
    return wy, wx


def _matmul(features, boxes, levels, strides, out):
    """One image: [R, out, out, C]."""
    shapes = [f.shape[:2] for f in features]
    channels = features[0].shape[-1]
    chunk = max(1, min(boxes.shape[0], CHUNK_ELEMENTS // (out * shapes[0][1] * channels)))

    def align(roi):
        box, level = roi
        wy, wx = _matrices(box, level, shapes, strides, out, 0)
        total = 0.0
        for index, feature in enumerate(features):
            height, width, _ = feature.shape
            own = jnp.where(level == index, wy[..., :height], 0)
            rows = jnp.einsum("ph,hwc->pwc", own, feature.astype(jnp.float32))
            total += jnp.einsum("qw,pwc->pqc", wx[..., :width], rows)
        return total

    return jax.lax.map(align, (boxes, levels), batch_size=chunk)


def _tiles(weights):
    """First touched cell and number of tiles from there on, per RoI."""
    touched = (weights > 0).any(-2)
    cells = touched.shape[-1]
    first = jnp.argmax(touched, -1).astype(jnp.int32)
    last = cells - 1 - jnp.argmax(touched[..., ::-1], -1).astype(jnp.int32)
    return first, jnp.where(touched.any(-1), (last - first) // TILE + 1, 0)


def _window_plan(boxes, levels, shapes, strides, out):
    """Matrices and, per RoI, where its tiles lie in the flattened pyramid (all images one after the other)."""
    batch = boxes.shape[0]
    wy, wx = _matrices(boxes, levels, shapes, strides, out, TILE)
    (y, ny), (x, nx) = _tiles(wy), _tiles(wx)
    sizes = [h * w for h, w in shapes]
    starts = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]), jnp.int32)
    base = starts[levels] + sum(sizes) * jnp.arange(batch, dtype=jnp.int32)[:, None]
    width = jnp.asarray([w for _, w in shapes], jnp.int32)[levels]
    plan = {"wy": wy, "wx": wx, "y": y, "x": x, "ny": ny, "nx": nx, "base": base, "width": width}
    return jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:])), plan)


def _tile(plan, roi, index):
    """Row starts in the flat pyramid and the two matrix slices of tile `index` of a RoI."""
    y = plan["y"][roi] + TILE * (index // plan["nx"][roi])
    x = plan["x"][roi] + TILE * (index % plan["nx"][roi])
    rows = plan["base"][roi] + (y + jnp.arange(TILE, dtype=jnp.int32)) * plan["width"][roi] + x
    wy = jax.lax.dynamic_slice_in_dim(plan["wy"][roi], y, TILE, 1)
    wx = jax.lax.dynamic_slice_in_dim(plan["wx"][roi], x, TILE, 1)
    return rows, wy, wx


_ROW = jax.lax.GatherDimensionNumbers(offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0,))
_ROW_BACK = jax.lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
)


def _flatten(features):
    """[B, H, W, C] levels -> one [cells, C] array, padded so that a tile at the very end stays inside."""
    batch, channels = features[0].shape[0], features[0].shape[-1]
    flat = jnp.concatenate([f.reshape(batch, -1, channels) for f in features], 1).reshape(-1, channels)
    return jnp.pad(flat, ((0, TILE * (features[0].shape[2] + 1)), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _windows(flat, plan, out):
    channels = flat.shape[-1]

    def align(_, roi):
        def add_tile(index, total):
            rows, wy, wx = _tile(plan, roi, index)
            window = jax.lax.gather(flat, rows[:, None], _ROW, (TILE, channels), mode="clip")
            return total + _contract(wy, window, wx)

        zeros = vary_like(vary_like(jnp.zeros((out, out, channels), jnp.float32), flat), plan["wy"])
        return None, jax.lax.fori_loop(0, plan["ny"][roi] * plan["nx"][roi], add_tile, zeros)

    return jax.lax.scan(align, None, jnp.arange(plan["wy"].shape[0]))[1]


def _contract(wy, window, wx):
    rows = jnp.einsum("ph,hwc->pwc", wy, window)
    return jnp.einsum("qw,pwc->pqc", wx, rows)


def _windows_forward(flat, plan, out):
    return _windows(flat, plan, out), (flat, plan)


def _windows_backward(out, residuals, gradient):
    del out
    flat, plan = residuals

    def spread(roi, total):
        def add_tile(index, total):
            rows, wy, wx = _tile(plan, roi, index)
            window = _contract(wy.T, gradient[roi], wx.T)
            return jax.lax.scatter_add(total, rows[:, None], window, _ROW_BACK, mode="clip")

        return jax.lax.fori_loop(0, plan["ny"][roi] * plan["nx"][roi], add_tile, total)

    zeros = vary_like(vary_like(jnp.zeros(flat.shape, gradient.dtype), gradient), plan["wy"])
    total = jax.lax.fori_loop(0, gradient.shape[0], spread, zeros)
    return total.astype(flat.dtype), None


_windows.defvjp(_windows_forward, _windows_backward)


def batched_roi_align(
    features: Sequence[Float[Array, "b _ _ c"]],
    boxes: Float[Array, "b r 4"],
    levels: Int[Array, "b r"],
    *,
    strides: Sequence[int],
    output_size: int,
    backend: str = "auto",
) -> Float[Array, "b r {output_size} {output_size} c"]:
    """RoIAlign (aligned, average, adaptive sampling) of every image's RoIs on their levels, in float32.

    Args:
      features: levels [B, H_l, W_l, C], finest first.
      boxes: in input pixels; no gradient flows to them. A box without area gives zeros.
      levels: index into `features`.
      strides: input pixels per cell of each level.
      output_size: bins per side.
      backend: "matmul", "window" or "auto" (see the module).
    """
    features, boxes = list(features), jax.lax.stop_gradient(boxes)
    if backend == "auto":
        backend = "window" if jax.default_backend() == "cpu" else "matmul"
    if backend == "matmul":
        align = lambda f, b, v: _matmul(f, b, v, strides, output_size)  # noqa: E731
        return jax.vmap(align)(features, boxes, levels)
    if backend != "window":
        raise ValueError(f"backend must be auto, matmul or window, not {backend!r}")
    shapes = [f.shape[1:3] for f in features]
    plan = _window_plan(boxes, levels, shapes, strides, output_size)
    flat = _flatten([f.astype(jnp.float32) for f in features])
    aligned = _windows(flat, plan, output_size)
    return aligned.reshape(*boxes.shape[:2], *aligned.shape[1:])


def roi_align(
    features: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "r 4"],
    levels: Int[Array, "r"],
    *,
    strides: Sequence[int],
    output_size: int,
    backend: str = "auto",
) -> Float[Array, "r {output_size} {output_size} c"]:
    """`batched_roi_align` of one image."""
    batched = batched_roi_align(
        [f[None] for f in features],
        boxes[None],
        levels[None],
        strides=strides,
        output_size=output_size,
        backend=backend,
    )
    return batched[0]
