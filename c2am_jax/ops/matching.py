"""Assignment of priors (anchors or proposals) to ground truths by maximal IoU."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float

from c2am_jax.ops.boxes import pairwise_iou
from c2am_jax.ops.varying import vary_like

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
BLOCK = 8  # ground truths that are matched at a time, the rows of a TPU's tile: an image of LVIS has 12 on average


@dataclasses.dataclass(frozen=True)
class MatchRule:
    """IoUs from which a prior is positive and below which it is negative; see `match`."""

    positive_iou: float
    negative_iou: float
    min_positive_iou: float
    match_low_quality: bool


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Matches:
    """What became of each prior.

    Attributes:
      kind: int32 [N], 1 positive, 0 negative, -1 ignored.
      gt_index: int32 [N], the matched ground truth; 0 unless positive.
    """

    kind: jax.Array
    gt_index: jax.Array


def match(
    iou: Float[Array, "g n"], gt_valid: Bool[Array, " g"], prior_valid: Bool[Array, " n"], rule: MatchRule
) -> Matches:
    """Match priors to ground truths as the reference's MaxIoU assigner does.

    A prior is negative below `negative_iou`, positive from `positive_iou` on (matched to the ground truth of
    its largest IoU, the first one on ties), ignored in between. With `match_low_quality`, every prior whose
    IoU equals a ground truth's maximum (if that is at least `min_positive_iou`) becomes positive for it;
    where several ground truths claim a prior so, the last one wins. Padded ground truths match nothing;
    invalid priors are ignored and do not count for a ground truth's maximum.
    """
    return _decided(_with(_none(prior_valid, iou), iou, gt_valid, prior_valid, 0, rule), prior_valid, rule)


def match_boxes(
    gt_boxes: Float[Array, "g 4"],
    gt_valid: Bool[Array, " g"],
    priors: Float[Array, "n 4"],
    prior_valid: Bool[Array, " n"],
    rule: MatchRule,
    *,
    block: int = BLOCK,
) -> Matches:
    """`match` by the boxes' IoU, of which only `block` ground truths' are there at a time.

    Blocks behind the last valid ground truth cost nothing.
    """
    count = gt_boxes.shape[0]
    padding = -count % block
    gt_boxes, gt_valid = jnp.pad(gt_boxes, ((0, padding), (0, 0))), jnp.pad(gt_valid, (0, padding))

    def add(number, found):
        first = number * block
        boxes, valid = (jax.lax.dynamic_slice_in_dim(a, first, block) for a in (gt_boxes, gt_valid))
        return _with(found, pairwise_iou(boxes, priors), valid, prior_valid, first, rule)

    last = jnp.max(jnp.where(gt_valid, jnp.arange(count + padding), -1), initial=-1)
    start = _none(prior_valid, gt_boxes)
    return _decided(jax.lax.fori_loop(0, last // block + 1, add, start), prior_valid, rule)


_Found = tuple[jax.Array, jax.Array, jax.Array]  # of each prior: best IoU, whose it is, 1 + last claiming ground truth


def _none(prior_valid: jax.Array, reference: jax.Array) -> _Found:
    """Without a ground truth; varies over the mesh as `reference` does."""
    numbers = vary_like(vary_like(jnp.zeros(prior_valid.shape, jnp.int32), prior_valid), reference)
    return numbers.astype(jnp.float32) - 1, numbers, numbers


def _with(found: _Found, iou, gt_valid, prior_valid, first, rule: MatchRule) -> _Found:
    """With a block of ground truths, the first of which has the number `first`."""
    best, gt_index, claimed = found
    iou = jnp.where(gt_valid[:, None] & prior_valid[None, :], iou, -1.0)
    # IoUs are compared for equality below. The barrier makes sure that both sides are the same stored
    # numbers, which a compiler is free to compute again in each fusion.
    iou = jax.lax.optimization_barrier(iou)
    here = iou.max(0)
    gt_index = jnp.where(here > best, first + iou.argmax(0).astype(jnp.int32), gt_index)
    if rule.match_low_quality:
        gt_best = iou.max(1)
        claims = (iou == gt_best[:, None]) & (gt_best >= rule.min_positive_iou)[:, None] & (iou >= 0)
        order = first + jnp.arange(1, iou.shape[0] + 1, dtype=jnp.int32)
        claimed = jnp.maximum(claimed, (claims * order[:, None]).max(0))
    return jnp.maximum(best, here), gt_index, claimed


def _decided(found: _Found, prior_valid: jax.Array, rule: MatchRule) -> Matches:
    best, gt_index, claimed = found
    # A prior without any valid ground truth has best == -1 and is negative.
    kind = jnp.where(best >= rule.positive_iou, POSITIVE, jnp.where(best < rule.negative_iou, NEGATIVE, IGNORED))
    kind = jnp.where(claimed > 0, POSITIVE, kind)
    gt_index = jnp.where(claimed > 0, claimed - 1, gt_index)
    kind = jnp.where(prior_valid, kind, IGNORED).astype(jnp.int32)
    return Matches(kind, jnp.where(kind == POSITIVE, gt_index, 0))
