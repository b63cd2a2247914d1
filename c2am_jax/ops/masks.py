"""Mask targets of RoIs, and bit unpacking."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, UInt8

from c2am_jax.ops.sampling_matrix import sampling_matrix

# Bins exactly half covered are common (straight borders between pixels) and count as inside; a little less
# than a half keeps them there whatever the rounding.
HALF = 0.5 - 1e-5
CHUNK = 16  # RoIs whose masks are gathered at a time


def unpack(bits: UInt8[Array, "*n m bytes"]) -> UInt8[Array, "*n m side"]:
    """Bit-packed rows (most significant bit first, `numpy.packbits`) to 0 and 1."""
    shifts = jnp.arange(7, -1, -1, dtype=jnp.uint8)
    return ((bits[..., None] >> shifts) & 1).reshape(*bits.shape[:-1], bits.shape[-1] * 8)


def mask_targets(
    masks: Num[Array, "g h w"],
    frames: Float[Array, "g 4"],
    gt_index: Int[Array, "p"],
    rois: Float[Array, "p 4"],
    *,
    size: int = 28,
) -> Float[Array, "p {size} {size}"]:
    """0/1 targets of each RoI: RoIAlign of its ground truth's 0/1 mask, at least 0.5 (reference rule).

    Args:
      masks: 0 and 1, in the frame given.
      frames: the rectangle in input pixels that each mask covers: its own box in training, the whole image in
        parity runs (where this is exactly the reference's crop).
      gt_index: the ground truth of each RoI.
      rois: in input pixels.
      size: side of the target.
    """
    height, width = masks.shape[1:]
    frame = frames[gt_index]
    extent = frame[:, 2:] - frame[:, :2]
    scale = jnp.array([width, height], rois.dtype) / jnp.where(extent > 0, extent, 1)
    corners = (rois - jnp.tile(frame[:, :2], 2)) * jnp.tile(scale, 2) - 0.5
    wy = sampling_matrix(corners[:, 1], corners[:, 3], height, out=size, cells=height)
    wx = sampling_matrix(corners[:, 0], corners[:, 2], width, out=size, cells=width)

    def crop(roi):
        index, y, x = roi
        rows = jnp.matmul(y, masks[index].astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        return jnp.matmul(rows, x.T, precision=jax.lax.Precision.HIGHEST)

    values = jax.lax.map(crop, (gt_index, wy, wx), batch_size=CHUNK)
    return (values >= HALF).astype(jnp.float32)
