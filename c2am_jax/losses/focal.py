"""Equalized focal loss (Li et al., CVPR 2022) for K sigmoid channels; rules of United-Perception's code."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2am_jax.losses.sigmoid import one_hot


def equalized_focal_loss(
    logits: Float[Array, "n k"],
    labels: Int[Array, " n"],
    ratio: Float[Array, " k"],
    *,
    gamma: float = 2.0,
    scale: float = 8.0,
    alpha: float = 0.25,
) -> tuple[Float[Array, " n"], Float[Array, "n k"]]:
    """``alpha_t (f_c / gamma) (1 - p_t)^f_c (-ln p_t)`` with ``f_c = gamma + scale (1 - g_c)``, summed over classes.

    Args:
      logits: [N, K], without background.
      labels: 0..K.
      ratio: g_c, positive over negative gradient that each class got so far, 0 to 1; 1 gives the plain focal loss.
      gamma, scale: smallest focusing exponent, and what a class without positive gradients gets on top.
      alpha: weight of positives; negatives get 1 - alpha.

    Returns:
      loss per sample, and the size of its gradient with respect to each logit.
    """
    targets = one_hot(labels, logits.shape[1], logits.dtype)
    sign = 2 * targets - 1
    focus = jax.lax.stop_gradient(gamma + scale * (1 - ratio))
    weight = focus / gamma * jnp.where(targets > 0, alpha, 1 - alpha)
    minus_log = jax.nn.softplus(-sign * logits)  # -ln p_t
    modulation = jnp.exp(-focus * jax.nn.softplus(sign * logits))  # (1 - p_t)^f
    loss = weight * modulation * minus_log
    p = jnp.exp(-minus_log)
    slope = jax.lax.stop_gradient(weight * modulation * (1 - p + focus * p * minus_log))
    return loss.sum(-1), slope
