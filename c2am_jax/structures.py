"""The arrays that cross rooms, each a frozen dataclass registered as a pytree.

Letters, the same everywhere: B images, G padded ground truths, R proposals, S sampled RoIs, D detections,
K foreground classes (background is class K, the last), M side of a stored mask.

Boxes are float32 ``(x1, y1, x2, y2)`` in pixels, continuous coordinates (no +1 anywhere). Every padded array
travels with a bool ``valid``: validity is never encoded in coordinates or labels.
"""

import dataclasses

import jax
from jax.tree_util import register_dataclass


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """What the host sends to the device: original pixels and what to do with them.

    Attributes:
      image: uint8 [B, S, S, 3], RGB, padded right and bottom to the source canvas.
      source_hw: int32 [B, 2], height and width of the original pixels inside the canvas.
      target_hw: int32 [B, 2], height and width after resizing.
      flip: bool [B], mirror left-right after resizing.
      boxes: float32 [B, G, 4] in source pixels.
      labels: int32 [B, G], 0-based foreground class.
      masks: uint8 [B, G, M, M / 8], bit-packed rows (most significant bit first) in the frame of their own box.
      valid: bool [B, G].
      image_id: int64 [B]; -1 marks an image that only pads the batch.
    """

    image: jax.Array
    source_hw: jax.Array
    target_hw: jax.Array
    flip: jax.Array
    boxes: jax.Array
    labels: jax.Array
    masks: jax.Array
    valid: jax.Array
    image_id: jax.Array


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the device makes of a `Batch` for a bucket (H, W).

    Attributes:
      image: float32 [B, H, W, 3], normalised, zero outside ``image_hw``.
      image_hw: int32 [B, 2], height and width of the resized image inside the bucket.
      boxes: float32 [B, G, 4] in input pixels.
      labels: int32 [B, G].
      masks: uint8 [B, G, Mh, Mw] of 0 and 1 (already flipped).
      mask_frames: float32 [B, G, 4], the rectangle in input pixels that each mask covers (its own box in
        training, the whole padded image in parity runs).
      valid: bool [B, G].
    """

    image: jax.Array
    image_hw: jax.Array
    boxes: jax.Array
    labels: jax.Array
    masks: jax.Array
    mask_frames: jax.Array
    valid: jax.Array


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposals:
    """RPN output, in score order: boxes [R, 4], scores [R] (sigmoid), valid [R]; batched [B, R, ...]."""

    boxes: jax.Array
    scores: jax.Array
    valid: jax.Array


@register_dataclass
@dataclasses.dataclass(frozen=True)
class RoISamples:
    """RoIs that the second stage trains on; positives come first, so the mask head reads a prefix.

    Attributes:
      boxes: float32 [S, 4].
      labels: int32 [S], K for background and for padding.
      gt_index: int32 [S], index of the matched ground truth (0 where not positive).
      positive: bool [S].
      is_gt: bool [S], the row is a ground truth itself, which a cascade does not refine.
      valid: bool [S]; False rows are padding and carry weight 0.
    """

    boxes: jax.Array
    labels: jax.Array
    gt_index: jax.Array
    positive: jax.Array
    is_gt: jax.Array
    valid: jax.Array


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """Final detections in input pixels, in score order.

    Attributes:
      boxes: float32 [D, 4].
      scores: float32 [D].
      labels: int32 [D], 0-based foreground class.
      masks: float32 [D, 28, 28], mask probabilities of the predicted class in the frame of the box.
      valid: bool [D].
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    masks: jax.Array
    valid: jax.Array
