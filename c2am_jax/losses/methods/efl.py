"""Equalized focal loss (Li et al., CVPR 2022) as a head of K sigmoids; rules of United-Perception's code."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2am_jax.checks import Positive
from c2am_jax.losses.channels import add_gradients, foreground_only, gradient_ratio, no_gradients, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples


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


def efl(gamma: float = 2.0, scale: Positive = 8.0, alpha: float = 0.25) -> Classification:
    """State as in EQL v2.

    Divided by the number of positive samples of all devices, the published normaliser, instead of that of all samples.
    """

    def loss(samples: Samples, head: Head, state):
        ratio = jnp.minimum(gradient_ratio(state, before=1.0), 1.0)
        logits = head.linear(samples.features)
        value, slope = equalized_focal_loss(logits, samples.labels, ratio, gamma=gamma, scale=scale, alpha=alpha)
        classes = logits.shape[1]
        count, positives = (
            samples.sum(x.sum().astype(logits.dtype)) for x in (samples.weights > 0, samples.foreground(classes))
        )
        share = 1 / jnp.maximum(positives, 1)
        is_label = one_hot(samples.labels, classes, logits.dtype)
        pulls, pushes = slope * share * is_label, slope * share * (1 - is_label)
        return value * count * share, add_gradients(state, pulls, pushes, samples)

    return foreground_only(loss, init_state=no_gradients)
