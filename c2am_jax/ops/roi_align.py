"""RoIAlign with the reference's adaptive sampling grid, as two small matrices per RoI.

Averaging bilinear samples on a regular grid is separable: for one RoI the result is Wy . F . Wx^T with Wy
[out, H] and Wx [out, W]. The matrices depend on the box only, which carries no gradient, so the number of
samples per bin can vary (reference: sampling_ratio 0) while every shape is static, and the backward pass is
the transposed product.

Three backends, equal up to rounding:
  * "matmul": dense products with whole feature maps, RoIs in chunks; no gather, no scatter (GPU).
  * "atlas": a window of static size per RoI and products that suit a matrix unit (TPU, see `roi_align_atlas`).
  * "window": loops over RoIs and reads only the tiles of the RoI's own level that its matrices touch (CPU:
    faster there by 1.5 on images of 64 pixels, 6 at 256, over 10 at 512, says benchmarks/ops.py).
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.ops.platforms import by_platform
from c2am_jax.ops.roi_align_atlas import Grids, by_atlas
from c2am_jax.ops.roi_align_onnx import align_level
from c2am_jax.ops.sampling_matrix import sampling_matrix
from c2am_jax.ops.varying import vary_like

TILE = 16  # cells per side of a window
CHUNK_ELEMENTS = 1 << 26  # bound on an image's intermediate of a chunk of RoIs in the matmul backend


def assign_levels(boxes: Float[Array, "*n 4"], *, finest_scale: int = 56, num_levels: int = 4) -> Int[Array, "*n"]:
    """Pyramid level of each RoI, 0 the finest: floor(log2(sqrt(area) / finest_scale + 1e-6)), clamped."""
    wh = boxes[..., 2:] - boxes[..., :2]
    scale = jnp.sqrt(jnp.maximum(wh[..., 0] * wh[..., 1], 0))
    return jnp.clip(jnp.floor(jnp.log2(scale / finest_scale + 1e-6)), 0, num_levels - 1).astype(jnp.int32)


def _matrices(boxes, levels, shapes, strides, out, pad):
    """Wy [*n, out, Hmax + pad] and Wx [*n, out, Wmax + pad] of each box on its own level."""
    scale = 1.0 / jnp.asarray(strides[: len(shapes)], jnp.float32)[levels]
    corners = boxes * scale[..., None] - 0.5
    heights, widths = (jnp.asarray(s, jnp.int32)[levels] for s in zip(*shapes, strict=True))
    tallest, widest = max(s[0] for s in shapes), max(s[1] for s in shapes)
    wy = sampling_matrix(corners[..., 1], corners[..., 3], heights, out=out, cells=tallest + pad)
    wx = sampling_matrix(corners[..., 0], corners[..., 2], widths, out=out, cells=widest + pad)
    return wy, wx


def _matmul(features, wy, wx, levels, dtype):
    """One image: [R, out, out, C]; linear in the features, so the transpose keeps only the matrices.

    The features are float32, and so is the sum of their gradients over the chunks; products are of `dtype`.
    """
    rois, out, _ = wy.shape
    chunk = max(1, min(rois, CHUNK_ELEMENTS // (out * features[0].shape[1] * features[0].shape[2])))

    def align(roi):
        wy, wx, level = roi
        total = 0.0
        for index, feature in enumerate(features):
            height, width, _ = feature.shape
            own = jnp.where(level == index, wy[:, :height], 0)
            total += _contract(*(a.astype(dtype) for a in (own, feature, wx[:, :width]))).astype(jnp.float32)
        return total

    return jax.lax.map(align, (wy, wx, levels), batch_size=chunk)


def _contract(wy, window, wx):
    return jnp.einsum("qw,pwc->pqc", wx, jnp.einsum("ph,hwc->pwc", wy, window))


def _tiles(weights):
    """First touched cell and number of tiles from there on, per RoI."""
    touched = (weights > 0).any(-2)
    cells = touched.shape[-1]
    first = jnp.argmax(touched, -1).astype(jnp.int32)
    last = cells - 1 - jnp.argmax(touched[..., ::-1], -1).astype(jnp.int32)
    return first, jnp.where(touched.any(-1), (last - first) // TILE + 1, 0)


def _window_plan(boxes, levels, shapes, strides, out):
    """Matrices and, per RoI, where its tiles lie in the flattened pyramid (one image after the other)."""
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


def _window_forward(flat, plan, out) -> jax.Array:
    channels = flat.shape[-1]

    def align(_, roi):
        def add_tile(index, total):
            rows, wy, wx = _tile(plan, roi, index)
            window = jax.lax.gather(flat, rows[:, None], _ROW, (TILE, channels), mode="clip")
            return total + _contract(wy, window, wx)

        zeros = vary_like(vary_like(jnp.zeros((out, out, channels), jnp.float32), flat), plan["wy"])
        return None, jax.lax.fori_loop(0, plan["ny"][roi] * plan["nx"][roi], add_tile, zeros)

    return jax.lax.scan(align, None, jnp.arange(plan["wy"].shape[0]))[1]


def _window_forward_and_residuals(flat, plan, out):
    return _window_forward(flat, plan, out), (flat, plan)


def _window_backward(out, residuals, gradient):
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


_windows = jax.custom_vjp(_window_forward, nondiff_argnums=(2,))
_windows.defvjp(_window_forward_and_residuals, _window_backward)


def pool(
    features: Sequence[Float[Array, "b _ _ c"]],
    boxes: Sequence[Float[Array, "b _ 4"]],
    levels: Sequence[Int[Array, "b _"]],
    *,
    strides: Sequence[int],
    grids: Sequence[Grids],
    backend: str = "auto",
) -> list[list[Float[Array, "b _ _ _ c"]]]:
    """RoIAlign (aligned, average, adaptive sampling) of several sets of RoIs, each RoI on its level.

    Args:
      features: levels [B, H_l, W_l, C], finest first.
      boxes: of each set, [B, R, 4] in input pixels; no gradient flows to them. A box without area gives zeros.
      levels: of each set, [B, R], index into `features`.
      strides: input pixels per cell of each level.
      grids: of each set, the sizes to which its RoIs are pooled, bins per side.
      backend: "matmul", "window", "atlas" or "auto" (see the module).

    Returns:
      of each set and each of its grids, [B, R, side, side, C] in the features' type. Sums are made in float32,
      those of the gradients too.
    """
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"backend must be auto, {' or '.join(BACKENDS)}, not {backend!r}")
    sets = [(jax.lax.stop_gradient(b), v, tuple(g)) for b, v, g in zip(boxes, levels, grids, strict=True) if b.shape[1]]
    found = iter(_pool(list(features), *zip(*sets, strict=True), strides, backend) if sets else ())
    channels, dtype = features[0].shape[-1], features[0].dtype
    empty = [
        [jnp.zeros((b.shape[0], 0, side, side, channels), dtype) for side in g]
        for b, g in zip(boxes, grids, strict=True)
    ]
    return [next(found) if b.shape[1] else nothing for b, nothing in zip(boxes, empty, strict=True)]


def _pool(features, boxes, levels, grids, strides, backend):
    backends = {name: functools.partial(f, strides=strides, grids=grids) for name, f in BACKENDS.items()}
    if backend != "auto":
        return backends[backend](features, boxes, levels)
    platforms = {"cpu": backends["window"], "tpu": backends["atlas"], "default": backends["matmul"]}
    onnx = functools.partial(_by_onnx, strides=strides, grids=grids)
    return by_platform(features, boxes, levels, onnx=onnx, **platforms)


def _by_matmul(features, boxes, levels, *, strides, grids):
    wide, shapes = [f.astype(jnp.float32) for f in features], [f.shape[1:3] for f in features]

    def one(boxes, levels, out):
        wy, wx = _matrices(boxes, levels, shapes, strides, out, 0)
        align = functools.partial(_matmul, dtype=features[0].dtype)
        return jax.vmap(align)(wide, wy, wx, levels).astype(features[0].dtype)

    return _each(one, boxes, levels, grids)


def _by_window(features, boxes, levels, *, strides, grids):
    shapes, flat = [f.shape[1:3] for f in features], _flatten([f.astype(jnp.float32) for f in features])

    def one(boxes, levels, out):
        aligned = _windows(flat, _window_plan(boxes, levels, shapes, strides, out), out)
        return aligned.reshape(*boxes.shape[:2], *aligned.shape[1:]).astype(features[0].dtype)

    return _each(one, boxes, levels, grids)


def _by_onnx(features, boxes, levels, *, strides, grids):
    def one(boxes, levels, out):
        # A box without area gives zeros, so each level sees the others' boxes as such.
        return sum(
            align_level(feature, jnp.where((levels == index)[..., None], boxes, 0), stride=strides[index], out=out)
            for index, feature in enumerate(features)
        )

    return _each(one, boxes, levels, grids)


def _each(one, boxes, levels, grids):
    """Each set in each of its grids by ``one(boxes, levels, side)``, which pools all sets of a side at once."""
    found = {}
    for side in sorted(set(itertools.chain(*grids))):
        members = [number for number, sides in enumerate(grids) if side in sides]
        together = (jnp.concatenate([a[number] for number in members], 1) for a in (boxes, levels))
        ends = np.cumsum([boxes[number].shape[1] for number in members])
        parts = jnp.split(one(*together, side), ends[:-1], 1)
        found |= {(number, side): part for number, part in zip(members, parts, strict=True)}
    return [[found[number, side] for side in sides] for number, sides in enumerate(grids)]


BACKENDS = {"matmul": _by_matmul, "window": _by_window, "atlas": by_atlas}


def batched_roi_align(
    features: Sequence[Float[Array, "b _ _ c"]],
    boxes: Float[Array, "b r 4"],
    levels: Int[Array, "b r"],
    *,
    strides: Sequence[int],
    output_size: int,
    backend: str = "auto",
) -> Float[Array, "b r {output_size} {output_size} c"]:
    """`pool` of one set of RoIs."""
    return pool(features, [boxes], [levels], strides=strides, grids=[(output_size,)], backend=backend)[0][0]


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
