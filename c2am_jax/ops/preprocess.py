"""From original pixels to network input on the device: resize, flip, normalise, pad.

Bilinear resizing is separable: two interpolation matrices per image, which accelerators multiply. On a CPU, where the
matrices' zeros cost most of the time, the two pixels that each one weighs are gathered instead: the same numbers up to
rounding, 6 times faster (benchmarks/input_pipeline.py --matrices).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from c2am_jax.ops.masks import unpack
from c2am_jax.ops.platforms import by_platform
from c2am_jax.structures import Batch, Inputs


def source_positions(
    source: Int[Array, ""], target: Int[Array, ""], flip: Bool[Array, ""], *, count: int
) -> Float[Array, "{count}"]:
    """Where each of `count` output pixels of an axis lies among the `source` pixels when they become `target`.

    Half-pixel centres, edges clamped, no antialiasing (reference rule: cv2's INTER_LINEAR); with `flip` the result is
    reversed; what lies from `target` on means nothing.
    """
    index = jnp.arange(count)
    output = jnp.where(flip, target - 1 - index, index).astype(jnp.float32)
    source, target = source.astype(jnp.float32), target.astype(jnp.float32)
    return jnp.clip((output + 0.5) * (source / target) - 0.5, 0, source - 1)


def _by_matrices(
    image: UInt8[Array, "s t 3"], at_y: Float[Array, "h"], at_x: Float[Array, "w"]
) -> Float[Array, "h w 3"]:
    def matrix(at, columns):
        return jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(columns, dtype=jnp.float32)), 0)

    exact = jax.lax.Precision.HIGHEST
    rows = jnp.einsum("hs,stc->htc", matrix(at_y, image.shape[0]), image.astype(jnp.float32), precision=exact)
    return jnp.einsum("wt,htc->hwc", matrix(at_x, image.shape[1]), rows, precision=exact)


def _by_gathering(
    image: UInt8[Array, "s t 3"], at_y: Float[Array, "h"], at_x: Float[Array, "w"]
) -> Float[Array, "h w 3"]:
    def neighbours(at, length):
        first = jnp.floor(at).astype(jnp.int32)
        return first, jnp.minimum(first + 1, length - 1), at - first

    height, width, channels = image.shape
    y0, y1, fy = neighbours(at_y, height)
    x0, x1, fx = (jnp.repeat(v, channels) for v in neighbours(at_x, width))
    channel = jnp.tile(jnp.arange(channels), len(at_x))
    flat = image.reshape(height, width * channels).astype(jnp.float32)
    columns = flat[:, x0 * channels + channel] * (1 - fx) + flat[:, x1 * channels + channel] * fx
    rows = columns[y0] * (1 - fy)[:, None] + columns[y1] * fy[:, None]
    return rows.reshape(len(at_y), len(at_x), channels)


RESIZERS = {"matrices": _by_matrices, "gathering": _by_gathering}


def preprocess(
    batch: Batch,
    bucket_hw: tuple[int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resizer: str = "auto",
) -> Inputs:
    """Resize each image to its target size, mirror it if asked, normalise, and pad with zeros to the bucket.

    Args:
      batch: original pixels.
      bucket_hw: (H, W) of the result, at least every ``target_hw``.
      mean, std: of the RGB channels, 0-255.
      resizer: "matrices", "gathering" or "auto": what suits the platform (see the module).
    """
    height, width = bucket_hw
    centre, spread = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)

    def resize(image, at_y, at_x):
        if resizer != "auto":
            return RESIZERS[resizer](image, at_y, at_x)
        return by_platform(image, at_y, at_x, cpu=_by_gathering, default=_by_matrices)

    def one(image, source_hw, target_hw, flip, boxes, bits):
        at_y = source_positions(source_hw[0], target_hw[0], jnp.zeros((), bool), count=height)
        at_x = source_positions(source_hw[1], target_hw[1], flip, count=width)
        pixels = resize(image, at_y, at_x)
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
