"""Equalization loss v2 (Tan et al., CVPR 2021): weights by the gradients that each class got so far."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2am_jax.losses import channels
from c2am_jax.losses.channels import Labels, Logits
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.detection import binary_cross_entropy


def eql_v2_weights(ratio: Float[Array, " k"], *, gamma: float, mu: float, alpha: float):
    """Weights of positive and of negative gradients of each class (Eqs. 7-8), [K] each."""
    negative = jax.nn.sigmoid(gamma * (ratio - mu))
    return 1 + alpha * (1 - negative), negative


def eql_v2_loss(
    logits: Logits,
    labels: Labels,
    ratio: Float[Array, " k"],
    *,
    gamma: float = 12.0,
    mu: float = 0.8,
    alpha: float = 4.0,
) -> tuple[Float[Array, " n"], Float[Array, "n k"], Float[Array, "n k"]]:
    """Equalization loss v2 and the gradients that it gave each class.

    Args:
      logits: [N, K + 1], the last channel is background's objectness, always of weight 1.
      labels: 0..K.
      ratio: accumulated positive over negative gradient of each foreground class.
      gamma, mu, alpha: of the weight function.

    Returns:
      loss per sample, and the weighted positive and negative gradients of each sample and foreground class.
    """
    classes = logits.shape[1] - 1
    targets = channels.one_hot(labels, classes + 1, logits.dtype)
    positive, negative = (jnp.append(w, 1.0) for w in eql_v2_weights(ratio, gamma=gamma, mu=mu, alpha=alpha))
    weights = jax.lax.stop_gradient(jnp.where(targets > 0, positive, negative).astype(logits.dtype))
    probability = jax.nn.sigmoid(jax.lax.stop_gradient(logits))
    pulls = (1 - probability) * weights * targets
    pushes = probability * weights * (1 - targets)
    loss = (weights * binary_cross_entropy(logits, targets)).sum(-1)
    return loss, pulls[:, :classes], pushes[:, :classes]


def eql_v2(gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0) -> Classification:
    """Its state is the gradient that each class got so far."""

    def loss(samples: Samples, head: Head, state):
        ratio, logits = channels.gradient_ratio(state, before=100.0), head.linear(samples.features)
        value, pulls, pushes = eql_v2_loss(logits, samples.labels, ratio, gamma=gamma, mu=mu, alpha=alpha)
        return value, channels.add_gradients(state, pulls, pushes, samples)

    return Classification(
        "linear",
        loss,
        own_activation=channels.sigmoid_with_background,
        init_state=channels.no_gradients,
        bias_init=channels.PRIOR_BIAS,
    )
