"""Anchors: constants of the padded image shape, numpy; and which of them an image may train on."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

# Reference rule: images are padded to multiples of this; anchors beyond an image's own padding do not train.
SIZE_DIVISOR = 32


def base_anchors(stride: int, scale: float, ratios: Sequence[float]) -> np.ndarray:
    """Anchors of one cell, centred on (0, 0): float32 [A, 4], one per ratio (height over width)."""
    root = np.sqrt(np.asarray(ratios, np.float32))
    w, h = stride * scale / root, stride * scale * root
    return np.stack([-0.5 * w, -0.5 * h, 0.5 * w, 0.5 * h], -1).astype(np.float32)


def grid_anchors(feature_hw: tuple[int, int], stride: int, scale: float, ratios: Sequence[float]) -> np.ndarray:
    """All anchors of one level: float32 [H * W * A, 4], order y, x, ratio.

    Reference rule: those of cell (y, x) are centred on (x * stride, y * stride), unrounded.
    """
    height, width = feature_hw
    y, x = np.meshgrid(np.arange(height) * stride, np.arange(width) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], -1).astype(np.float32)
    return (shifts[:, :, None] + base_anchors(stride, scale, ratios)).reshape(-1, 4)


def feature_shapes(bucket_hw: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Feature map size (height, width) of each stride: the bucket's size over the stride, rounded up."""
    return [(-(-bucket_hw[0] // s), -(-bucket_hw[1] // s)) for s in strides]


def pyramid_anchors(
    bucket_hw: tuple[int, int], strides: Sequence[int], scale: float, ratios: Sequence[float]
) -> list[np.ndarray]:
    """`grid_anchors` of every level, finest first."""
    shapes = feature_shapes(bucket_hw, strides)
    return [grid_anchors(hw, s, scale, ratios) for hw, s in zip(shapes, strides, strict=True)]


def inside_image(
    bucket_hw: tuple[int, int],
    image_hw: Int[Array, "2"],
    *,
    strides: Sequence[int],
    scale: float,
    ratios: Sequence[float],
    allowed_border: int = -1,
) -> Bool[Array, " n"]:
    """Which anchors of all levels (concatenated) an image trains on.

    Reference rule: the anchor's cell lies inside the image's own padded shape (its size rounded up to 32)
    and, if `allowed_border` >= 0, the anchor exceeds the unpadded image by no more than that many pixels (on
    the right and at the bottom by less).

    Args:
      bucket_hw: padded height and width of the batch, which fix the feature maps.
      image_hw: height and width of the image inside the bucket.
      strides: of the levels, finest first.
      scale: anchor side over stride, at ratio 1.
      ratios: height over width.
      allowed_border: in pixels; -1 for no limit.
    """
    padded = -(-image_hw // SIZE_DIVISOR) * SIZE_DIVISOR
    flags = []
    for (height, width), stride in zip(feature_shapes(bucket_hw, strides), strides, strict=True):
        rows = jnp.arange(height) < -(-padded[0] // stride)
        columns = jnp.arange(width) < -(-padded[1] // stride)
        cells = rows[:, None] & columns[None, :]
        flags.append(jnp.broadcast_to(cells[..., None], (height, width, len(ratios))).reshape(-1))
    inside = jnp.concatenate(flags)
    if allowed_border >= 0:
        anchors = np.concatenate(pyramid_anchors(bucket_hw, strides, scale, ratios))
        low = (anchors[:, :2] >= -allowed_border).all(-1)
        high = (anchors[:, 2:] < image_hw[::-1] + allowed_border).all(-1)
        inside = inside & low & high
    return inside
