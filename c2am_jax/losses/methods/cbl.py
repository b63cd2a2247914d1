"""Class-balanced loss (Cui et al., CVPR 2019), softmax form: weights by effective numbers of instances."""

import jax.numpy as jnp
import numpy as np

from c2am_jax.checks import Below1
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights


def cbl(statistics: ClassStatistics, beta: Below1 = 0.999, background_weight: float = 1.0) -> Classification:
    """Instance counts; divided by N."""
    weights = np.append(effective_number_weights(statistics.instances, beta), background_weight)

    def loss(samples: Samples, head: Head, state):
        plain = softmax_cross_entropy(head.linear(samples.features), samples.labels)
        return jnp.asarray(weights, plain.dtype)[samples.labels] * plain, state

    return Classification("linear", loss)
