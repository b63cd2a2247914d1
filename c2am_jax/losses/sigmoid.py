"""Losses with one sigmoid per class: EQL, EQL v2, balanced sigmoid (BALMS), ECM.

Logits are [N, K] (foreground classes only) or [N, K + 1] (background last); labels 0..K, background K. Each function
gives one loss per sample [N], the sum over the channels; targets are one-hot, weights carry no gradient.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2am_jax.losses.detection import binary_cross_entropy

Logits = Float[Array, "n c"]
Labels = Int[Array, " n"]
PRIOR_BIAS = -math.log(999)  # a prior of 0.001, so that K channels start with a small loss


def one_hot(labels: Labels, channels: int, dtype=jnp.float32) -> Float[Array, "n c"]:
    """Targets [N, channels]; labels beyond the last channel have none."""
    return (labels[:, None] == jnp.arange(channels)[None]).astype(dtype)


def eql_loss(logits: Logits, labels: Labels, is_tail: Float[Array, " k"]) -> Float[Array, " n"]:
    """Equalization loss (Tan et al., CVPR 2020, Eq. 3): foreground samples of other classes leave tail classes alone.

    Args:
      logits: [N, K], without background.
      labels: 0..K.
      is_tail: 1 for classes whose image frequency lies below lambda, else 0.
    """
    classes = logits.shape[1]
    targets = one_hot(labels, classes, logits.dtype)
    foreground = (labels < classes).astype(logits.dtype)[:, None]
    weights = 1 - foreground * is_tail * (1 - targets)
    return (weights * binary_cross_entropy(logits, targets)).sum(-1)


def eql_v2_weights(ratio: Float[Array, " k"], *, gamma: float, mu: float, alpha: float):
    """Weights of positive and of negative gradients of each class (Tan et al., CVPR 2021, Eqs. 7-8), [K] each."""
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
    targets = one_hot(labels, classes + 1, logits.dtype)
    positive, negative = (jnp.append(w, 1.0) for w in eql_v2_weights(ratio, gamma=gamma, mu=mu, alpha=alpha))
    weights = jax.lax.stop_gradient(jnp.where(targets > 0, positive, negative).astype(logits.dtype))
    probability = jax.nn.sigmoid(jax.lax.stop_gradient(logits))
    pulls = (1 - probability) * weights * targets
    pushes = probability * weights * (1 - targets)
    loss = (weights * binary_cross_entropy(logits, targets)).sum(-1)
    return loss, pulls[:, :classes], pushes[:, :classes]


def balanced_sigmoid_loss(logits: Logits, labels: Labels, frequency: Float[Array, " k"]) -> Float[Array, " n"]:
    """BALMS as its LVIS code has it (Ren et al., NeurIPS 2020): foreground logits shifted by -ln((1 - f) / f).

    `frequency`: share of images that hold each class, [K]; samples of background are not shifted.
    """
    classes = logits.shape[1]
    targets = one_hot(labels, classes, logits.dtype)
    shift = jnp.log(frequency) - jnp.log1p(-frequency)
    foreground = (labels < classes)[:, None]
    return binary_cross_entropy(jnp.where(foreground, logits + shift, logits), targets).sum(-1)


def ecm_terms(counts: Float[Array, " c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Shift of the doubled logit and weight of each channel (Cho and Krähenbühl, ECCV 2022).

    `counts`: of each channel's positives, background included, [C].
    """
    negatives = counts.sum() - counts
    positive_root, negative_root = counts**0.25, negatives**0.25
    shift = jnp.log(positive_root) - jnp.log(negative_root)
    ratio = negatives / counts
    return shift, ratio * jnp.log1p(1 / ratio)


def ecm_loss(logits: Logits, labels: Labels, counts: Float[Array, " c"]) -> Float[Array, " n"]:
    """Effective class-margin loss: weighted BCE of sigmoid(2 z + shift); inference uses sigmoid(z).

    `logits` [N, K + 1] and `counts` [K + 1], background last.
    """
    shift, weight = ecm_terms(counts)
    targets = one_hot(labels, logits.shape[1], logits.dtype)
    return (weight * binary_cross_entropy(2 * logits + shift, targets)).sum(-1)
