"""PCB: soft labels from a running confusion matrix (He et al., CVPR 2022); rules of the authors' code.

The rules are those of `cross_entropy_pcb_loss.py` of megvii-research/PCB. State of a head with K classes, the same on
every device:

  confusion  [K, K]  running mean of the softmax over the classes that samples of each class get; rows add up to 1
  counts     [K]     samples of each class so far
  step       []
  epoch      []      finished epochs

The source puts this loss on a box head that runs three times, each time on features changed by its last scores and
deltas, with a third, two thirds and all of the soft labels' share. Here the head runs once and has all of it, as the
loss alone does there.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.checks import Natural, Share
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.confusion import confusion_sums
from c2am_jax.losses.cross_entropy import softmax_cross_entropy

TINY = 1e-30  # divides nothing by zero


def updated_confusion(
    confusion: Float[Array, "k k"], sums: Float[Array, "k k"], counts: Float[Array, " k"], *, momentum: float = 0.99
) -> Float[Array, "k k"]:
    """``momentum`` times the old row plus the rest of this batch's mean, divided by the row's sum.

    Args:
      confusion: of the state; a row of zeros where a class had no sample yet, whose first mean then counts fully.
      sums, counts: of `losses.confusion.confusion_sums`; rows of classes without a sample stay.
      momentum: share of the old row.
    """
    mean = sums / jnp.maximum(counts, 1.0)[:, None]
    new = momentum * confusion + (1 - momentum) * mean
    new = new / jnp.maximum(new.sum(1, keepdims=True), TINY)
    return jnp.where((counts > 0)[:, None], new, confusion)


def soft_labels(confusion: Float[Array, "k k"], labels: Int[Array, " n"]) -> Float[Array, "n k1"]:
    """What stands against the usual mistakes: of all that is taken for a sample's class, the share of each class.

    The label's column, divided by its sum, and 0 for background: [N, K + 1]. Rows of background samples are of no use.
    """
    classes = len(confusion)
    columns = confusion / jnp.maximum(confusion.sum(0), TINY)
    return jnp.pad(columns.T[jnp.minimum(labels, classes - 1)], ((0, 0), (0, 1)))


def pcb_loss(
    logits: Float[Array, "n k1"],
    labels: Int[Array, " n"],
    confusion: Float[Array, "k k"],
    softened: Bool[Array, ""] | bool = True,
    *,
    alpha: float = 0.4,
) -> Float[Array, " n"]:
    """Cross-entropy; of foreground samples ``(1 - alpha)`` of it and ``alpha KL(soft label || softmax)``: [N].

    Args:
      logits: K classes, then background.
      labels: 0..K, background K.
      confusion: of `updated_confusion`, this batch included; no gradient.
      softened: whether soft labels count already.
      alpha: their share.
    """
    hard = softmax_cross_entropy(logits, labels)
    target = jax.lax.stop_gradient(soft_labels(confusion, labels))
    known = jax.scipy.special.xlogy(target, target).sum(-1)
    divergence = known - (target * jax.nn.log_softmax(logits, -1)).sum(-1)
    share = jnp.where(softened & (labels < len(confusion)), alpha, 0.0)
    return (1 - share) * hard + share * divergence


def pcb(
    alpha: Share = 0.4, momentum: Share = 0.99, start_epoch: Natural = 17, start_step: Natural = 0
) -> Classification:
    """Soft labels of share `alpha` count once every class had a sample and the run is far enough.

    That is after `start_epoch` epochs (the source: 17 of 24) and from `start_step` on, for runs of few epochs.
    """

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        sums, seen = confusion_sums(logits, jax.lax.stop_gradient(samples), len(state["counts"]))
        confusion = updated_confusion(state["confusion"], sums, seen, momentum=momentum)
        counts = state["counts"] + seen
        late = (state["epoch"] >= start_epoch) & (state["step"] >= start_step)
        per_sample = pcb_loss(logits, samples.labels, confusion, late & (counts > 0).all(), alpha=alpha)
        return per_sample, state | {"confusion": confusion, "counts": counts, "step": state["step"] + 1}

    def init_state(num_classes, width):
        numbers = {name: jnp.zeros((), jnp.int32) for name in ("step", "epoch")}
        return {"confusion": jnp.zeros((num_classes, num_classes)), "counts": jnp.zeros(num_classes), **numbers}

    def after_epoch(state, sums):
        return state | {"epoch": state["epoch"] + 1}

    return Classification("linear", loss, init_state=init_state, after_epoch=after_epoch)
