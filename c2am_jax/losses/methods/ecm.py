"""Effective class-margin loss (Cho and Krähenbühl, ECCV 2022)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2am_jax.checks import Positive
from c2am_jax.losses.channels import PRIOR_BIAS, Labels, Logits, one_hot, sigmoid_with_background
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def ecm_terms(counts: Float[Array, " c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Shift of the doubled logit and weight of each channel.

    `counts`: of each channel's positives, background included, [C].
    """
    negatives = counts.sum() - counts
    positive_root, negative_root = counts**0.25, negatives**0.25
    shift = jnp.log(positive_root) - jnp.log(negative_root)
    ratio = negatives / counts
    return shift, ratio * jnp.log1p(1 / ratio)


def ecm_loss(logits: Logits, labels: Labels, counts: Float[Array, " c"]) -> Float[Array, " n"]:
    """Weighted BCE of sigmoid(2 z + shift); inference uses sigmoid(z).

    `logits` [N, K + 1] and `counts` [K + 1], background last.
    """
    shift, weight = ecm_terms(counts)
    targets = one_hot(labels, logits.shape[1], logits.dtype)
    return (weight * binary_cross_entropy(2 * logits + shift, targets)).sum(-1)


def ecm(statistics: ClassStatistics, background_ratio: Positive = 6.3313) -> Classification:
    """Image counts; background counts `background_ratio` times all."""
    counts = np.maximum(statistics.image_count, 1.0)
    counts = np.append(counts, background_ratio * counts.sum())

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        return ecm_loss(logits, samples.labels, jnp.asarray(counts, logits.dtype)), state

    return Classification("linear", loss, own_activation=sigmoid_with_background, bias_init=PRIOR_BIAS)
