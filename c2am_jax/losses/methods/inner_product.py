"""Softmax cross-entropy over inner products, and what weights or priors of class counts make of it."""

import jax.numpy as jnp
import numpy as np

from c2am_jax.losses.classification import Classification, linear_logits
from c2am_jax.losses.softmax import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights


def softmax() -> Classification:
    """Softmax cross-entropy, the baseline of every table."""

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del weights, axis_name
        return softmax_cross_entropy(linear_logits(features, kernel, bias), labels), state

    return Classification("linear", linear_logits, loss)


def cbl(statistics: ClassStatistics, beta: float = 0.999, background_weight: float = 1.0) -> Classification:
    """Class-balanced loss (Cui et al., CVPR 2019), softmax form; instance counts, divided by N."""
    weights = np.append(effective_number_weights(statistics.instances, beta), background_weight)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        plain = softmax_cross_entropy(linear_logits(features, kernel, bias), labels)
        return jnp.asarray(weights, plain.dtype)[labels] * plain, state

    return Classification("linear", linear_logits, loss)


def balanced_softmax(statistics: ClassStatistics, background_share: float = 0.75) -> Classification:
    """Balanced softmax (Ren et al., NeurIPS 2020, Eq. 3): ln of instance counts is added to the logits in training.

    The paper has no background class; here it counts as `background_share` of all samples, the RoI sampler's share.
    """
    counts = statistics.instances
    prior = np.log(np.append(counts, counts.sum() * background_share / (1 - background_share)))

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return softmax_cross_entropy(logits + jnp.asarray(prior - prior.max(), logits.dtype), labels), state

    return Classification("linear", linear_logits, loss)
