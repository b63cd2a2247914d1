"""RoIAlign for TPUs: each RoI reads one window of static size out of an atlas of all levels.

A RoI covers 14 to 28 cells of its own level by its square root, so one window of 32 x 40 cells holds most of them; a
longer one takes more windows, as many as it needs. The levels lie side by side in one array, so that a window is one
slice, and its contraction with both matrices of the RoI is one product with their outer product, of sizes that suit a
matrix unit. The gradient goes the same way back, and is summed in float32.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from c2am_jax.ops.sampling_matrix import sampling_matrix
from c2am_jax.ops.varying import vary_like

ROWS, COLUMNS = 32, 40  # cells of a window
ALIGNED = 8  # columns at which windows may begin: the TPU's layout has tiles of 8
AT_ONCE = 8  # windows in a step of the loop
_PITCH = 1 << 10
Grids = tuple[int, ...]  # sides of the grids of bins into which a RoI is pooled


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Where the levels lie in one array: P2 above, the others side by side below it."""

    shapes: tuple[tuple[int, int], ...]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """First row and column of each level."""
        widths = [_aligned(width) for _, width in self.shapes[1:]]
        return [(0, 0), *((self.shapes[0][0], sum(widths[:i])) for i in range(len(widths)))]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, at least those of a window."""
        ends = [(y + h, x + _aligned(w)) for (y, x), (h, w) in zip(self.offsets, self.shapes, strict=True)]
        return max(ROWS, *(y for y, _ in ends)), max(COLUMNS, *(x for _, x in ends))

    def join(self, features: Sequence[jax.Array]) -> jax.Array:
        """Levels [H, W, C] of an image -> [rows, columns / ALIGNED, ALIGNED, C]."""
        rows, columns = self.size
        atlas = vary_like(jnp.zeros((rows, columns, features[0].shape[-1]), features[0].dtype), features[0])
        for (y, x), feature in zip(self.offsets, features, strict=True):
            atlas = jax.lax.dynamic_update_slice(atlas, feature, (y, x, 0))
        return atlas.reshape(rows, columns // ALIGNED, ALIGNED, -1)

    def split(self, atlas: jax.Array) -> list[jax.Array]:
        """The levels again."""
        flat = atlas.reshape(*self.size, -1)
        return [flat[y : y + h, x : x + w] for (y, x), (h, w) in zip(self.offsets, self.shapes, strict=True)]


def _aligned(columns: int) -> int:
    return -(-columns // ALIGNED) * ALIGNED


class _RoIs(NamedTuple):
    """N RoIs of an image: corners in cells, size of the level and its place, and their windows."""

    low: jax.Array  # y, x [N, 2]
    high: jax.Array
    size: jax.Array
    offset: jax.Array
    first: jax.Array  # cell that the first window begins with [N, 2]
    windows: jax.Array  # how many [N, 2]


class _Windows(NamedTuple):
    """Windows: their places, and the weights of their rows and columns in each of P bins.

    Attributes:
      place: int32 [n], first row times `_PITCH`, plus first column over `ALIGNED`: one number, since each that a loop
        reads costs a program of its own.
      wy: [n, ROWS, P].
      wx: [n, COLUMNS, P].
    """

    place: jax.Array
    wy: jax.Array
    wx: jax.Array


def _rois(boxes, levels, atlas: Atlas, strides) -> _RoIs:
    """Of boxes [*N, 4]."""
    corners = boxes / jnp.asarray(strides[: len(atlas.shapes)], jnp.float32)[levels][..., None] - 0.5
    low, high = corners[..., 1::-1], corners[..., :1:-1]
    size = jnp.asarray(atlas.shapes, jnp.int32)[levels]
    first, last = (jnp.clip(end, 0, size - 1).astype(jnp.int32) for end in (jnp.floor(low), jnp.ceil(high)))
    first = first - first % jnp.asarray([1, ALIGNED])
    windows = jnp.maximum(last - first, 0) // jnp.asarray([ROWS, COLUMNS]) + 1
    return _RoIs(low, high, size, jnp.asarray(atlas.offsets, jnp.int32)[levels], first, windows)


def _windows(rois: _RoIs, number: jax.Array, atlas: Atlas, grids: Grids, dtype) -> _Windows:
    """The windows `number` [n] of n RoIs, each counted along its rows first; bins of all `grids`, row by row."""
    row, column = number // rois.windows[:, 1], number % rois.windows[:, 1]
    begin = rois.first + jnp.stack([row * ROWS, column * COLUMNS], -1)
    last = [side - window for side, window in zip(atlas.size, (ROWS, COLUMNS), strict=True)]
    y, x = (corner := jnp.minimum(rois.offset + begin, jnp.asarray(last))).T

    def weights(axis, cells, out):
        origin = corner[:, axis] - rois.offset[:, axis]
        ends = rois.low[:, axis], rois.high[:, axis], rois.size[:, axis]
        found = sampling_matrix(*ends, out=out, cells=cells, origin=origin)
        # At the end of the atlas a window begins earlier, with cells of the one before.
        found = jnp.where(jnp.arange(cells) >= (begin[:, axis] - origin)[:, None, None], found, 0)
        return jnp.swapaxes(found, 1, 2).astype(dtype)

    wy = [jnp.repeat(weights(0, ROWS, out), out, 2) for out in grids]
    wx = [jnp.tile(weights(1, COLUMNS, out), (1, 1, out)) for out in grids]
    place = y * _PITCH + x // ALIGNED
    return _Windows(place, jnp.concatenate(wy, 2), jnp.concatenate(wx, 2))


def _weights(wy: jax.Array, wx: jax.Array) -> jax.Array:
    """[..., ROWS * COLUMNS, P] of windows."""
    both = wy[..., :, None, :] * wx[..., None, :, :]
    return both.reshape(*both.shape[:-3], ROWS * COLUMNS, -1)


def _window(atlas: jax.Array, place: jax.Array) -> tuple[tuple, tuple]:
    """Place and size of a window in the atlas [rows, columns / ALIGNED, ALIGNED, C]."""
    return (place // _PITCH, place % _PITCH, 0, 0), (ROWS, COLUMNS // ALIGNED, ALIGNED, atlas.shape[-1])


def _product(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _read(atlas: jax.Array, windows: _Windows) -> list[jax.Array]:
    """Bins [P, C] of each window, float32."""
    weights, found = _weights(windows.wy, windows.wx), []
    for i in range(AT_ONCE):
        cells = jax.lax.dynamic_slice(atlas, *_window(atlas, windows.place[i])).reshape(-1, atlas.shape[-1])
        found.append(_product(weights[i], cells, (0, 0)))
    return found


def _add(atlas: jax.Array, windows: _Windows, values: jax.Array) -> jax.Array:
    """Values [n, P, C] of the bins, spread over the windows of the atlas."""
    for i in range(AT_ONCE):
        place, size = _window(atlas, windows.place[i])
        new = _product(_weights(windows.wy[i], windows.wx[i]), values[i], (1, 0))
        old = jax.lax.dynamic_slice(atlas, place, size)
        atlas = jax.lax.dynamic_update_slice(atlas, old + new.reshape(size), place)
    return atlas


def _more(rois: _RoIs) -> tuple[jax.Array, jax.Array]:
    """Windows beyond the first of each RoI: their number up to and with each RoI [N], and steps of a loop over all."""
    ends = jnp.cumsum(rois.windows.prod(1) - 1)
    return ends, -(-ends[-1] // AT_ONCE)


def _of_step(rois: _RoIs, ends: jax.Array, step: jax.Array) -> tuple[jax.Array, _RoIs, jax.Array, jax.Array]:
    """The further windows of a step: numbers of their RoIs, these, the windows' numbers, and which windows exist."""
    place = step * AT_ONCE + jnp.arange(AT_ONCE)
    before = ends[None] <= place[:, None]
    roi = jnp.minimum(before.sum(1), ends.shape[0] - 1)
    exists = place < ends[-1]
    number = place - jnp.where(before, ends[None], 0).max(1) + 1
    return roi, jax.tree.map(lambda a: a[roi], rois), jnp.where(exists, number, 0), exists


def _in_steps(tree, count: int):
    """Arrays of N rows as [N / AT_ONCE, AT_ONCE, ...], padded with zeros."""
    padding = -count % AT_ONCE

    def split(a):
        return jnp.pad(a, ((0, padding),) + ((0, 0),) * (a.ndim - 1)).reshape(-1, AT_ONCE, *a.shape[1:])

    return jax.tree.map(split, tree)


def _forward(
    features: Sequence[jax.Array], rois: Sequence[_RoIs], atlas: Atlas, grids: Sequence[Grids]
) -> list[jax.Array]:
    def one_image(image):
        features, rois = image
        joined = atlas.join(features)
        return [_pooled(joined, *own, atlas) for own in zip(rois, grids, strict=True)]

    # One image after the other: an atlas, in float32 in the backward pass, fits in a TPU's vector memory.
    return jax.lax.map(one_image, (features, rois))


def _pooled(joined: jax.Array, rois: _RoIs, grids: Grids, atlas: Atlas) -> jax.Array:
    count, dtype = rois.low.shape[0], joined.dtype
    first = _in_steps(_windows(rois, jnp.zeros(count, jnp.int32), atlas, grids, dtype), count)
    result = jax.lax.scan(lambda _, windows: (None, jnp.stack(_read(joined, windows))), None, first)[1]
    result = result.reshape(-1, *result.shape[2:])
    ends, steps = _more(rois)

    def add(step, result):
        roi, own, number, exists = _of_step(rois, ends, step)
        for i, values in enumerate(_read(joined, _windows(own, number, atlas, grids, dtype))):
            old = jax.lax.dynamic_slice_in_dim(result, roi[i], 1)
            new = old + jnp.where(exists[i], values, 0)
            result = jax.lax.dynamic_update_slice_in_dim(result, new, roi[i], 0)
        return result

    return jax.lax.fori_loop(0, steps, add, result)[:count].astype(dtype)


def _backward(
    atlas: Atlas, grids: Sequence[Grids], rois: Sequence[_RoIs], gradients: Sequence[jax.Array]
) -> tuple[list[jax.Array], None]:
    channels, dtype = gradients[0].shape[-1], gradients[0].dtype
    rows, columns = atlas.size

    def one_image(image):
        rois, gradients = image
        total = jnp.zeros((rows, columns // ALIGNED, ALIGNED, channels), jnp.float32)
        total = vary_like(vary_like(total, gradients[0]), rois[0].low)
        for gradient, *own in zip(gradients, rois, grids, strict=True):
            total = _spread(total, gradient, *own, atlas)
        return [level.astype(dtype) for level in atlas.split(total)]

    return jax.lax.map(one_image, (rois, gradients)), None


def _spread(total: jax.Array, gradient: jax.Array, rois: _RoIs, grids: Grids, atlas: Atlas) -> jax.Array:
    count, dtype = rois.low.shape[0], gradient.dtype
    parts = _in_steps((_windows(rois, jnp.zeros(count, jnp.int32), atlas, grids, dtype), gradient), count)
    total = jax.lax.scan(lambda total, part: (_add(total, *part), None), total, parts)[0]
    ends, steps = _more(rois)

    def add(step, total):
        roi, own, number, exists = _of_step(rois, ends, step)
        values = jnp.where(exists[:, None, None], gradient[roi], 0)
        return _add(total, _windows(own, number, atlas, grids, dtype), values)

    return jax.lax.fori_loop(0, steps, add, total)


_align = jax.custom_vjp(_forward, nondiff_argnums=(2, 3))
_align.defvjp(lambda features, rois, atlas, grids: (_forward(features, rois, atlas, grids), rois), _backward)


def by_atlas(features, boxes, levels, *, strides, grids) -> list[list[jax.Array]]:
    """`roi_align.pool`."""
    atlas = Atlas(tuple(feature.shape[1:3] for feature in features))
    rois = [_rois(*own, atlas, strides) for own in zip(boxes, levels, strict=True)]
    aligned = _align(list(features), rois, atlas, tuple(grids))
    return [_bins(*own) for own in zip(aligned, grids, strict=True)]


def _bins(aligned: jax.Array, grids: Grids) -> list[jax.Array]:
    """[B, R, P, C] -> [B, R, side, side, C] of each grid."""
    ends = [sum(side**2 for side in grids[:i]) for i in range(len(grids) + 1)]
    parts = [aligned[:, :, first:end] for first, end in zip(ends[:-1], ends[1:], strict=True)]
    return [part.reshape(*part.shape[:2], side, side, -1) for part, side in zip(parts, grids, strict=True)]
