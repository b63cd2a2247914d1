"""Exact greedy non-maximum suppression with static shapes: of one set of boxes, and per class over many classes.

A box is suppressed when a kept box of higher score overlaps it by more than the threshold. On score-sorted boxes
this is a fixed point of ``kept = ~any(suppresses & kept)`` over a triangular matrix; iterating from "all kept"
settles at least one more box of every suppression chain each time, so it ends with the greedy answer after as many
iterations as the longest chain (2-5 in practice).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.ops.boxes import pairwise_iou


def _fixed_point(suppresses: Bool[Array, "n n"], alive: Bool[Array, "n"]) -> Bool[Array, "n"]:
    """Greedy survivors: `suppresses[i, j]` says that i, if kept, removes j (only i < j)."""

    def settle(carry):
        kept, _ = carry
        now = alive & ~jnp.any(suppresses & kept[:, None], axis=0)
        return now, jnp.any(now != kept)

    kept, _ = jax.lax.while_loop(lambda carry: carry[1], settle, (alive, jnp.any(alive)))
    return kept


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    *,
    iou_threshold: float,
    max_output: int,
) -> tuple[Int[Array, "d"], Bool[Array, "d"]]:
    """Greedy NMS of one set of boxes.

    Returns:
      Indices of the survivors in score order (ties: the lower index first), padded to `max_output` with 0, and
      which of them are valid.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes = boxes[order]
    above = jnp.triu(jnp.ones((boxes.shape[0],) * 2, bool), 1)
    kept = _fixed_point((pairwise_iou(boxes, boxes) > iou_threshold) & above, valid[order])
    first = jnp.argsort(~kept, stable=True)[:max_output]
    index, keep = jnp.where(kept[first], order[first], 0), kept[first]
    short = max_output - index.shape[0]
    return jnp.pad(index, (0, max(short, 0))).astype(jnp.int32), jnp.pad(keep, (0, max(short, 0)))


def multiclass_nms(
    scores: Float[Array, "r k"],
    box_fn: Callable[[jax.Array, jax.Array], jax.Array],
    roi_valid: Bool[Array, "r"],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_output: int,
    block: int = 4096,
) -> tuple[
    Float[Array, "d 4"], Float[Array, "d"], Int[Array, "d"], Int[Array, "d"], Bool[Array, "d"]
]:
    """Per-class greedy NMS over every (RoI, class), then the best `max_output` of all classes; exact.

    What survives depends on higher scores only, so the best `block` candidates are settled first and further blocks
    are looked at only while fewer than `max_output` survive and candidates remain.

    Args:
      scores: foreground class scores.
      box_fn: ``(roi [n], label [n]) -> boxes [n, 4]``; called for candidates only.
      roi_valid: rows that take part.
      score_threshold: candidates score strictly above it.
      iou_threshold: overlaps strictly above it suppress.
      max_output: D.
      block: candidates settled at a time.

    Returns:
      boxes, scores, labels, RoI index and validity of the detections, in score order (ties: the lower RoI, then
      the lower class first); padded rows are 0.
    """
    num_classes = scores.shape[1]
    remaining = jnp.where(roi_valid[:, None] & (scores > score_threshold), scores, -1.0).reshape(-1)
    block = min(block, remaining.shape[0])
    above = jnp.triu(jnp.ones((block, block), bool), 1)
    # Derived from data: under shard_map a loop carry must vary over the mesh from the start.
    nothing = jnp.zeros((max_output,), remaining.dtype) + 0 * remaining[0]
    empty = {
        "boxes": jnp.zeros((max_output, 4), jnp.float32) + nothing[:, None],
        "scores": nothing,
        "labels": nothing.astype(jnp.int32),
        "rois": nothing.astype(jnp.int32),
        "valid": nothing > 0,
    }

    def settle_block(carry):
        remaining, kept = carry
        top, flat = jax.lax.top_k(remaining, block)
        roi, label = (flat // num_classes).astype(jnp.int32), (flat % num_classes).astype(jnp.int32)
        boxes = box_fn(roi, label)
        earlier = pairwise_iou(kept["boxes"], boxes) > iou_threshold
        earlier &= (kept["labels"][:, None] == label[None]) & kept["valid"][:, None]
        alive = (top > 0) & ~earlier.any(0)
        suppresses = (pairwise_iou(boxes, boxes) > iou_threshold) & (label[:, None] == label[None]) & above
        new = {"boxes": boxes, "scores": top, "labels": label, "rois": roi}
        new["valid"] = _fixed_point(suppresses, alive)
        joined = {name: jnp.concatenate([kept[name], new[name]]) for name in new}
        first = jnp.argsort(~joined["valid"], stable=True)[:max_output]
        kept = {name: joined[name][first] for name in joined}
        return remaining.at[flat].set(-1.0), kept

    def unfinished(carry):
        remaining, kept = carry
        return ~kept["valid"].all() & (remaining.max() > 0)

    _, kept = jax.lax.while_loop(unfinished, settle_block, (remaining, empty))
    zero = lambda x: jnp.where(kept["valid"].reshape((-1,) + (1,) * (x.ndim - 1)), x, 0)  # noqa: E731
    return zero(kept["boxes"]), zero(kept["scores"]), zero(kept["labels"]), zero(kept["rois"]), kept["valid"]
