"""DisAlign: learned alignment of a frozen classifier's scores (Zhang et al., CVPR 2021)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.softmax import softmax_cross_entropy


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
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    class_weights: Float[Array, " c"],
    *,
    axis_name: str | None = None,
) -> Float[Array, " n"]:
    """Weighted cross-entropy over the sum of the weights on all devices: each sample's share, [N].

    Args:
      logits: aligned, [N, K + 1].
      labels: 0..K.
      weights: 1, or 0 for padding.
      class_weights: of `generalized_weights`.
      axis_name: mesh axis of the devices.
    """
    own = weights * class_weights[labels]
    total = global_sum(own.sum(), axis_name)
    return own * softmax_cross_entropy(logits, labels) / jnp.where(total > 0, total, 1.0)


def confidence(features: Float[Array, "n d"], direction: Float[Array, " d"], offset: Float[Array, ""]):
    """``sigmoid(v x + v_0)``, how far a sample's scores follow the alignment: [N]."""
    return jax.nn.sigmoid(features.astype(direction.dtype) @ direction + offset)
