"""Assignment of priors (anchors or proposals) to ground truths by maximal IoU."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


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
    iou: Float[Array, "g n"],
    gt_valid: Bool[Array, " g"],
    prior_valid: Bool[Array, " n"],
    *,
    positive_iou: float,
    negative_iou: float,
    min_positive_iou: float,
    match_low_quality: bool,
) -> Matches:
    """Match priors to ground truths as the reference's MaxIoU assigner does.

    A prior is negative below `negative_iou`, positive from `positive_iou` on (matched to the ground truth of
    its largest IoU, the first one on ties), ignored in between. With `match_low_quality`, every prior whose
    IoU equals a ground truth's maximum (if that is at least `min_positive_iou`) becomes positive for it;
    where several ground truths claim a prior so, the last one wins. Padded ground truths match nothing;
    invalid priors are ignored and do not count for a ground truth's maximum.
    """
    iou = jnp.where(gt_valid[:, None] & prior_valid[None, :], iou, -1.0)
    # IoUs are compared for equality below. The barrier makes sure that both sides are the same stored
    # numbers, which a compiler is free to compute anew in each fusion.
    iou = jax.lax.optimization_barrier(iou)
    best = iou.max(0)
    gt_index = iou.argmax(0).astype(jnp.int32)
    # A prior without any valid ground truth has best == -1 and is negative.
    kind = jnp.where(best >= positive_iou, POSITIVE, jnp.where(best < negative_iou, NEGATIVE, IGNORED))
    if match_low_quality:
        gt_best = iou.max(1)
        claims = (iou == gt_best[:, None]) & (gt_best >= min_positive_iou)[:, None] & (iou >= 0)
        order = jnp.arange(1, iou.shape[0] + 1, dtype=jnp.int32)
        last = (claims * order[:, None]).max(0)
        kind = jnp.where(last > 0, POSITIVE, kind)
        gt_index = jnp.where(last > 0, last - 1, gt_index)
    kind = jnp.where(prior_valid, kind, IGNORED).astype(jnp.int32)
    return Matches(kind, jnp.where(kind == POSITIVE, gt_index, 0))
