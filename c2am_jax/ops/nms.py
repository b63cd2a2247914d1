"""Exact greedy non-maximum suppression with static shapes: of one set of boxes, and per class of many.

A box is suppressed when a kept box of higher score overlaps it by more than the threshold. Two ways to the
same answer on score-sorted boxes, chosen by the platform the program is compiled for:

* a fixed point of ``kept = ~any(suppresses & kept)`` over a triangular matrix. Iterating from "all kept"
  settles at least one more box of every suppression chain each time, so it takes as many iterations as the
  longest chain (4-10 for a few thousand boxes), each of them one parallel reduction;
* one box after the other, without a matrix. On two CPU cores this takes 0.4-2 ms for 2000 boxes and 1-6 ms
  for 4096, the fixed point 2-4 ms and 23-25 ms. On an accelerator each of these dependent tiny steps would
  pay a launch, so the fixed point is used there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.ops.boxes import pairwise_iou
from c2am_jax.ops.platforms import by_platform
from c2am_jax.ops.selection import first_true, largest
from c2am_jax.ops.varying import vary_like


def fixed_point(
    boxes: Float[Array, "n 4"], group: Int[Array, " n"], alive: Bool[Array, " n"], *, iou_threshold: float
) -> Bool[Array, " n"]:
    """Greedy survivors among score-sorted boxes: only boxes of one `group` suppress each other."""
    place = jnp.arange(boxes.shape[0])
    suppresses = (pairwise_iou(boxes, boxes) > iou_threshold) & (group[:, None] == group[None])
    suppresses &= place[:, None] < place

    def settle(carry):
        kept, _ = carry
        now = alive & ~jnp.any(suppresses & kept[:, None], axis=0)
        return now, jnp.any(now != kept)

    return jax.lax.while_loop(lambda carry: carry[1], settle, (alive, jnp.any(alive)))[0]


def one_by_one(
    boxes: Float[Array, "n 4"], group: Int[Array, " n"], alive: Bool[Array, " n"], *, iou_threshold: float
) -> Bool[Array, " n"]:
    """The same as `fixed_point`, in as many steps as there are boxes."""
    position = jnp.arange(boxes.shape[0])

    def settle(i, kept):
        suppressed = (pairwise_iou(boxes[i][None], boxes)[0] > iou_threshold) & (group == group[i]) & (position > i)
        return kept & ~(suppressed & kept[i])

    return jax.lax.fori_loop(0, boxes.shape[0], settle, alive)


def _survivors(boxes: jax.Array, group: jax.Array, alive: jax.Array, iou_threshold: float) -> jax.Array:
    return by_platform(
        boxes,
        group,
        vary_like(alive, boxes),
        cpu=functools.partial(one_by_one, iou_threshold=iou_threshold),
        default=functools.partial(fixed_point, iou_threshold=iou_threshold),
    )


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_output: int,
) -> tuple[Int[Array, " d"], Bool[Array, " d"]]:
    """Greedy NMS of one set of boxes.

    Returns:
      Indices of the survivors in score order (ties: the lower index first), padded to `max_output` with 0,
      and which of them are valid.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    place, keep = sorted_nms(boxes[order], valid[order], iou_threshold=iou_threshold, max_output=max_output)
    if boxes.shape[0] == 0:
        return place, keep
    return jnp.where(keep, order[place], 0).astype(jnp.int32), keep


def sorted_nms(
    boxes: Float[Array, "n 4"], valid: Bool[Array, " n"], *, iou_threshold: float, max_output: int
) -> tuple[Int[Array, " d"], Bool[Array, " d"]]:
    """`nms` of boxes in score order, invalid ones anywhere among them."""
    if boxes.shape[0] == 0:
        return jnp.zeros(max_output, jnp.int32), jnp.zeros(max_output, bool)
    kept = _survivors(boxes, jnp.zeros(boxes.shape[0], jnp.int32), valid, iou_threshold)
    index, found = first_true(kept, max_output)
    keep = jnp.arange(max_output) < found
    return jnp.where(keep, index, 0), keep


def multiclass_nms(
    scores: Float[Array, "r k"],
    box_fn: Callable[[jax.Array, jax.Array], jax.Array],
    roi_valid: Bool[Array, " r"],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_output: int,
    block: int | None = None,
) -> tuple[Float[Array, "d 4"], Float[Array, " d"], Int[Array, " d"], Int[Array, " d"], Bool[Array, " d"]]:
    """Per-class greedy NMS over every (RoI, class), then the best `max_output` of all classes; exact.

    What survives depends on higher scores only, so the best `block` candidates are settled first, and further
    blocks are looked at only while fewer than `max_output` survive and candidates remain.

    Args:
      scores: foreground class scores.
      box_fn: ``(roi [n], label [n]) -> boxes [n, 4]``; called for candidates only.
      roi_valid: rows that take part.
      score_threshold: candidates score strictly above it.
      iou_threshold: overlaps strictly above it suppress.
      max_output: D.
      block: candidates settled at a time; None takes what suits the platform.

    Returns:
      boxes, scores, labels, RoI index and validity of the detections, in score order (ties: the lower RoI,
      then the lower class first); padded rows are 0.
    """
    remaining = jnp.where(roi_valid[:, None] & (scores > score_threshold), scores, -jnp.inf).reshape(-1)
    settle = functools.partial(
        _in_blocks, box_fn=box_fn, num_classes=scores.shape[1], iou_threshold=iou_threshold, max_output=max_output
    )
    if block is not None:
        return settle(remaining, block=block)
    return by_platform(
        remaining,
        onnx=functools.partial(settle, block=512),  # each pair of a block is compared, on one core
        default=functools.partial(settle, block=4096),
    )


def _in_blocks(remaining, *, box_fn, num_classes, iou_threshold, max_output, block):
    """`multiclass_nms` of the scores of every (RoI, class) [r * k], -inf for those that take no part."""
    block = min(block, remaining.shape[0])
    position = jnp.arange(remaining.shape[0])
    empty = {
        "boxes": jnp.zeros((max_output, 4), remaining.dtype),
        "scores": jnp.zeros((max_output,), remaining.dtype),
        "labels": jnp.zeros((max_output,), jnp.int32),
        "rois": jnp.zeros((max_output,), jnp.int32),
        "valid": jnp.zeros((max_output,), bool),
    }
    empty = {name: vary_like(value, remaining) for name, value in empty.items()}

    def settle_block(carry):
        remaining, kept = carry
        top, flat = largest(remaining, block)
        roi, label = (flat // num_classes).astype(jnp.int32), (flat % num_classes).astype(jnp.int32)
        boxes = box_fn(roi, label)
        earlier = pairwise_iou(kept["boxes"], boxes) > iou_threshold
        earlier &= (kept["labels"][:, None] == label[None]) & kept["valid"][:, None]
        alive = (top > -jnp.inf) & ~earlier.any(0)
        new = {"boxes": boxes, "scores": top, "labels": label, "rois": roi}
        new["valid"] = _survivors(boxes, label, alive, iou_threshold)
        joined = {name: jnp.concatenate([kept[name], new[name]]) for name in new}
        first, found = first_true(joined["valid"], max_output)
        kept = {name: joined[name].at[first].get(mode="clip") for name in joined}
        kept["valid"] = jnp.arange(max_output) < found
        settled = (remaining > top[-1]) | ((remaining == top[-1]) & (position <= flat[-1]))
        return jnp.where(settled, -jnp.inf, remaining), kept

    def unfinished(carry):
        remaining, kept = carry
        return ~kept["valid"].all() & (remaining.max() > -jnp.inf)

    _, kept = jax.lax.while_loop(unfinished, settle_block, (remaining, empty))
    valid = kept["valid"]
    scores, labels, rois = (jnp.where(valid, kept[name], 0) for name in ("scores", "labels", "rois"))
    return jnp.where(valid[:, None], kept["boxes"], 0), scores, labels, rois, valid
