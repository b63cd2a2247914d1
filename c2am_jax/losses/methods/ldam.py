"""LDAM (Cao et al., NeurIPS 2019): margins between cosines by instance counts, re-weighting deferred (DRW)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2am_jax.checks import Below1, Natural, NonNegative, Positive
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification, Head, Samples, count_steps
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights


def ldam_margins(instance_count: np.ndarray, max_margin: float = 0.5) -> np.ndarray:
    """LDAM's margins (Eq. 12): proportional to n^(-1/4), `max_margin` for the rarest: [K]."""
    return max_margin * (instance_count / instance_count.min()) ** -0.25


def ldam_loss(
    features: Features, kernel: Kernel, labels: Labels, margins: Float[Array, "c"], *, scale: float = 30.0
) -> PerSample:
    """LDAM: the label's logit is s (cos(theta) - m_label); `margins` [C], background's 0 (our choice)."""
    angles.check_labels(labels)
    return ldam_of_cosines(angles.cosines(features, kernel), labels, margins, scale=scale)


def ldam_of_cosines(
    c: Float[Array, "n c"], labels: Labels, margins: Float[Array, "c"], *, scale: float = 30.0
) -> PerSample:
    """LDAM, given the cosines [N, C]."""
    return softmax_cross_entropy(scale * angles.with_own(c, labels, angles.own(c, labels) - margins[labels]), labels)


def ldam(
    statistics: ClassStatistics,
    scale: Positive = 30.0,
    max_margin: NonNegative = 0.5,
    reweight_from: Natural = 0,
    beta: Below1 = 0.9999,
) -> Classification:
    """From step `reweight_from` on (0: never) with effective-number weights. Its state is the step."""
    margins = np.append(ldam_margins(statistics.instances, max_margin), 0.0)
    weights = np.append(effective_number_weights(statistics.instances, beta), 1.0)

    def loss(samples: Samples, head: Head, state):
        of_labels = samples.labels, jnp.asarray(margins, jnp.float32)
        own = ldam_loss(samples.features, head.kernel, *of_labels, scale=scale)
        deferred = (reweight_from > 0) & (state["step"] >= reweight_from)
        own = own * jnp.where(deferred, jnp.asarray(weights, own.dtype)[samples.labels], 1.0)
        return own, {"step": state["step"] + 1}

    return Classification("cosine", loss, angles.scaled_cosines(scale), init_state=count_steps)
