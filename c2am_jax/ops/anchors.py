"""Anchors: as tables of the padded image shape, numpy, and by number; and which of them an image may train on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """The anchors of all levels of a padded image by their number: levels finest first, then y, x, ratio.

    `pyramid_anchors` as arithmetic on numbers: a program holds no table of them, and gathers none.

    Attributes:
      shapes: height and width of the feature map of each level.
      strides: of the levels, in pixels.
      scale: anchor side over stride, at ratio 1.
      ratios: height over width.
    """

    shapes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    scale: float
    ratios: tuple[float, ...]

    @property
    def starts(self) -> list[int]:
        """Number of the first anchor of each level, and how many there are in all."""
        counts = [height * width * len(self.ratios) for height, width in self.shapes]
        return [sum(counts[:level]) for level in range(len(counts) + 1)]

    def boxes(self, index: Int[Array, "*n"]) -> Float[Array, "*n 4"]:
        """Anchors xyxy in pixels, the float32 numbers of `pyramid_anchors`."""
        x, y, stride, ratio = self._place(index)
        corners = np.stack([base_anchors(stride, self.scale, self.ratios) for stride in self.strides])
        x, y = (x * stride).astype(jnp.float32), (y * stride).astype(jnp.float32)
        sides = [self._of_level(index, [_chosen(ratio, level[:, i]) for level in corners]) for i in range(4)]
        return jnp.stack([x + sides[0], y + sides[1], x + sides[2], y + sides[3]], -1)

    def inside(
        self, index: Int[Array, "*n"], image_hw: Int[Array, "2"], *, allowed_border: int = -1
    ) -> Bool[Array, "*n"]:
        """Which anchors an image trains on.

        Reference rule: the anchor's cell lies inside the image's own padded shape (its size rounded up to 32)
        and, if `allowed_border` >= 0, the anchor exceeds the unpadded image by no more than that many pixels (on
        the right and at the bottom by less).

        Args:
          index: of the anchors.
          image_hw: height and width of the image inside the padded one.
          allowed_border: in pixels; -1 for no limit.
        """
        padded = -(-image_hw // SIZE_DIVISOR) * SIZE_DIVISOR
        x, y, stride, _ = self._place(index)
        inside = (y * stride < padded[0]) & (x * stride < padded[1])
        if allowed_border >= 0:
            x1, y1, x2, y2 = jnp.moveaxis(self.boxes(index), -1, 0)
            low = (x1 >= -allowed_border) & (y1 >= -allowed_border)
            inside = inside & low & (x2 < image_hw[1] + allowed_border) & (y2 < image_hw[0] + allowed_border)
        return inside

    def _place(self, index: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Column and row of the cell, stride, number of the ratio."""
        own = index - self._of_level(index, self.starts[:-1])
        cell, ratio = own // len(self.ratios), own % len(self.ratios)
        width = self._of_level(index, [width for _, width in self.shapes])
        return cell % width, cell // width, self._of_level(index, self.strides), ratio

    def _of_level(self, index: jax.Array, values: Sequence[Any]) -> jax.Array:
        """The value of each anchor's level."""
        result = jnp.broadcast_to(values[0], index.shape)
        for start, value in zip(self.starts[1:-1], values[1:], strict=True):
            result = jnp.where(index >= start, value, result)
        return result


def _chosen(which: jax.Array, values: np.ndarray) -> jax.Array:
    """Values[which], without a gather."""
    result = jnp.full(which.shape, values[0])
    for number, value in enumerate(values[1:], 1):
        result = jnp.where(which == number, value, result)
    return result
