"""Boxes as float32 ``(x1, y1, x2, y2)`` in pixels, and the delta coder of the R-CNN family."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Anchors are numpy constants, everything else is traced.
AnyArray = Array | np.ndarray

# Reference rule: |dw| and |dh| are clipped to the logarithm of this ratio, both signs.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def area(boxes: Float[AnyArray, "*n 4"]) -> Float[Array, "*n"]:
    """Area in square pixels; 0 for boxes turned inside out."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return jnp.maximum(x2 - x1, 0) * jnp.maximum(y2 - y1, 0)


def pairwise_iou(a: Float[AnyArray, "n 4"], b: Float[AnyArray, "m 4"]) -> Float[Array, "n m"]:
    """Intersection over union of every pair; 0 where both boxes are empty."""
    # Coordinate by coordinate: an axis of length 2 behind the pairs is many times slower in nms.py.
    ax1, ay1, ax2, ay2 = (a[:, i, None] for i in range(4))
    bx1, by1, bx2, by2 = (b[None, :, i] for i in range(4))
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    intersection = width * height
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def clip(boxes: Float[AnyArray, "*n 4"], hw: Int[AnyArray, "2"] | Float[AnyArray, "2"]) -> Float[Array, "*n 4"]:
    """Clip to the image: x to [0, W], y to [0, H] (reference rule: the far edge is W, not W - 1)."""
    limit = jnp.stack([hw[1], hw[0], hw[1], hw[0]]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limit)


def _centre_size(boxes: Float[AnyArray, "*n 4"]) -> tuple[Float[AnyArray, "*n 2"], Float[AnyArray, "*n 2"]]:
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]


def encode_deltas(
    anchors: Float[AnyArray, "*n 4"],
    targets: Float[AnyArray, "*n 4"],
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*n 4"]:
    """Deltas (dx, dy, dw, dh) that take `anchors` to `targets`, divided by `stds`.

    Sides below 1e-6 px count as 1e-6, so padded (all-zero) rows give finite numbers.
    """
    anchor_centre, anchor_size = _centre_size(anchors)
    target_centre, target_size = _centre_size(targets)
    anchor_size = jnp.maximum(anchor_size, 1e-6)
    shift = (target_centre - anchor_centre) / anchor_size
    stretch = jnp.log(jnp.maximum(target_size, 1e-6) / anchor_size)
    return jnp.concatenate([shift, stretch], -1) / jnp.asarray(stds, anchors.dtype)


def decode_deltas(
    anchors: Float[AnyArray, "*n 4"],
    deltas: Float[AnyArray, "*n 4"],
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*n 4"]:
    """Inverse of `encode_deltas`, with |dw| and |dh| clipped to |log(16 / 1000)|. Boxes are not clipped."""
    deltas = deltas * jnp.asarray(stds, deltas.dtype)
    centre, size = _centre_size(anchors)
    centre = centre + deltas[..., :2] * size
    half = size * jnp.exp(jnp.clip(deltas[..., 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO)) * 0.5
    return jnp.concatenate([centre - half, centre + half], -1)
