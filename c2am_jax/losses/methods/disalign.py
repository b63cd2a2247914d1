"""DisAlign, a second stage: learned alignment of a frozen classifier's scores (Zhang et al., CVPR 2021)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2am_jax.checks import NonNegative
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def aligned_logits(
    logits: Float[Array, "n c"],
    confidence: Float[Array, " n"],
    magnitude: Float[Array, " k"],
    margin: Float[Array, " k"],
) -> Float[Array, "n c"]:
    """``q (a_c z_c + b_c) + (1 - q) z_c`` for the K classes; background's logit stays (Eqs. 6-7): [N, K + 1]."""
    own, q = logits[:, :-1], confidence[:, None]
    return jnp.concatenate([q * (magnitude * own + margin) + (1 - q) * own, logits[:, -1:]], -1)


def generalized_weights(instances: np.ndarray, power: float = 0.8, background: float = 1.0) -> np.ndarray:
    """``r_c^-power`` of each class's share of instances, normalised to sum K (Eq. 11), then background: [K + 1]."""
    weights = (instances / instances.sum()) ** -power
    return np.append(weights * len(weights) / weights.sum(), background)


def disalign_loss(
    logits: Float[Array, "n c"], samples: Samples, class_weights: Float[Array, " c"]
) -> Float[Array, " n"]:
    """Weighted cross-entropy over the sum of the weights on all devices: each sample's share, [N].

    Args:
      logits: aligned, [N, K + 1].
      samples: labels and weights.
      class_weights: of `generalized_weights`.
    """
    own = samples.weights * class_weights[samples.labels]
    total = samples.sum(own.sum())
    return own * softmax_cross_entropy(logits, samples.labels) / jnp.where(total > 0, total, 1.0)


def confidence(features: Float[Array, "n d"], direction: Float[Array, " d"], offset: Float[Array, ""]):
    """``sigmoid(v x + v_0)``, how far a sample's scores follow the alignment: [N]."""
    return jax.nn.sigmoid(features.astype(direction.dtype) @ direction + offset)


def disalign(statistics: ClassStatistics, power: float = 0.8, background_weight: NonNegative = 1.0) -> Classification:
    """Only magnitude a, margin b and the confidence's v and v_0 train."""
    class_weights = generalized_weights(statistics.instances, power, background_weight)

    def logits(features: jax.Array, head: Head):
        extra = head.extra
        q = confidence(features, extra["direction"], extra["offset"])
        return aligned_logits(head.linear(features), q, extra["magnitude"], extra["margin"])

    def loss(samples: Samples, head: Head, state):
        aligned = logits(samples.features, head)
        shares = disalign_loss(aligned, samples, jnp.asarray(class_weights, aligned.dtype))
        return shares * samples.count, state  # the caller divides by their number

    def extra_parameters(num_classes, width, draw_key):
        return {
            "magnitude": jnp.ones(num_classes),
            "margin": jnp.zeros(num_classes),
            "direction": 0.01 * jax.random.normal(draw_key(), (width,)),
            "offset": jnp.zeros(()),
        }

    return Classification("linear", loss, logits, extra_parameters=extra_parameters)
