"""From original pixels to network input on the device: resize, flip, normalise, pad."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.ops.masks import unpack
from c2am_jax.structures import Batch, Inputs


def interpolation_matrix(
    source: Int[Array, ""], target: Int[Array, ""], flip: Bool[Array, ""], *, rows: int, columns: int
) -> Float[Array, "{rows} {columns}"]:
    """Bilinear resizing of one axis from `source` to `target` pixels.

    Half-pixel centres, edges clamped, no antialiasing (reference rule: cv2's INTER_LINEAR); with `flip` the
    result is reversed; rows from `target` on are zero.
    """
    index = jnp.arange(rows)
    output = jnp.where(flip, target - 1 - index, index).astype(jnp.float32)
    at = (output + 0.5) * (source.astype(jnp.float32) / target.astype(jnp.float32)) - 0.5
    at = jnp.clip(at, 0, source.astype(jnp.float32) - 1)
    weights = jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(columns, dtype=jnp.float32)), 0)
    return jnp.where((index < target)[:, None], weights, 0)


def preprocess(batch: Batch, bucket_hw: tuple[int, int], *, mean: Sequence[float], std: Sequence[float]) -> Inputs:
    """Resize each image to its target size, mirror it if asked, normalise, and pad with zeros to the bucket.

    Args:
      batch: original pixels.
      bucket_hw: (H, W) of the result, at least every ``target_hw``.
      mean, std: of the RGB channels, 0-255.
    """
    height, width = bucket_hw
    canvas_h, canvas_w = batch.image.shape[1:3]
    centre, spread = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    exact = jax.lax.Precision.HIGHEST

    def one(image, source_hw, target_hw, flip, boxes, bits):
        upright = jnp.zeros((), bool)
        wy = interpolation_matrix(source_hw[0], target_hw[0], upright, rows=height, columns=canvas_h)
        wx = interpolation_matrix(source_hw[1], target_hw[1], flip, rows=width, columns=canvas_w)
        pixels = jnp.einsum("hs,stc->htc", wy, image.astype(jnp.float32), precision=exact)
        pixels = jnp.einsum("wt,htc->hwc", wx, pixels, precision=exact)
        inside = (jnp.arange(height) < target_hw[0])[:, None] & (jnp.arange(width) < target_hw[1])
        pixels = jnp.where(inside[..., None], (pixels - centre) / spread, 0)

        ratio = (target_hw / source_hw).astype(jnp.float32)[::-1]
        boxes = boxes * jnp.concatenate([ratio, ratio])
        x1, y1, x2, y2 = boxes.T
        mirrored = jnp.stack([target_hw[1] - x2, y1, target_hw[1] - x1, y2], -1)
        masks = unpack(bits)
        return pixels, jnp.where(flip, mirrored, boxes), jnp.where(flip, masks[..., ::-1], masks)

    image, boxes, masks = jax.vmap(one)(
        batch.image, batch.source_hw, batch.target_hw, batch.flip, batch.boxes, batch.masks
    )
    boxes = jnp.where(batch.valid[..., None], boxes, 0)
    return Inputs(image, batch.target_hw, boxes, batch.labels, masks, boxes, batch.valid)
