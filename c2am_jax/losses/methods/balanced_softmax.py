"""Balanced softmax (Ren et al., NeurIPS 2020, Eq. 3): ln of instance counts is added to the logits in training."""

from typing import Annotated

import jax.numpy as jnp
import numpy as np

from c2am_jax.checks import Allowed
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def balanced_softmax(
    statistics: ClassStatistics,
    background_share: Annotated[float, Allowed("a number between 0 and 1", lambda share: 0 < share < 1)] = 0.75,
) -> Classification:
    """The paper has no background; here it counts as `background_share` of all samples, the RoI sampler's share."""
    counts = statistics.instances
    prior = np.log(np.append(counts, counts.sum() * background_share / (1 - background_share)))

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        return softmax_cross_entropy(logits + jnp.asarray(prior - prior.max(), logits.dtype), samples.labels), state

    return Classification("linear", loss)
