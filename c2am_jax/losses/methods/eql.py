"""Equalization loss (Tan et al., CVPR 2020, Eq. 3): foreground samples of other classes leave tail classes alone."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from c2am_jax.checks import Share
from c2am_jax.losses.channels import Labels, Logits, foreground_only, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def eql_loss(logits: Logits, labels: Labels, is_tail: Float[Array, " k"]) -> Float[Array, " n"]:
    """Binary cross-entropies of each sample, those of tail classes left out where another class is in the foreground.

    Args:
      logits: [N, K], without background.
      labels: 0..K.
      is_tail: 1 for classes whose image frequency lies below lambda, else 0.
    """
    classes = logits.shape[1]
    targets = one_hot(labels, classes, logits.dtype)
    foreground = (labels < classes).astype(logits.dtype)[:, None]
    weights = 1 - foreground * is_tail * (1 - targets)
    return (weights * binary_cross_entropy(logits, targets)).sum(-1)


def eql(statistics: ClassStatistics, tail_frequency: Share = 1.1e-3) -> Classification:
    """Lambda 1.1e-3 for LVIS v1.0, 1.77e-3 for v0.5, of image frequency."""
    tail = statistics.image_frequency < tail_frequency

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        return eql_loss(logits, samples.labels, jnp.asarray(tail, logits.dtype)), state

    return foreground_only(loss)
