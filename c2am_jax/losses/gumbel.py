"""Gumbel optimized loss (Alexandridis et al., ECCV 2022) with DropLoss weights (Hsieh et al., AAAI 2021).

K channels without background, each of probability ``exp(-exp(-z))``. Rules of the authors' `droploss.py`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.losses.sigmoid import one_hot

LOWEST, HIGHEST = -4.0, 10.0  # logits in training; beyond them there is no gradient
LN2 = math.log(2)
FIRST_BIAS, FIRST_STD = -2.0, 0.001  # of the classifier: a probability of 6e-4


def gumbel_activation(logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``exp(-exp(-z))``: the distribution function of the Gumbel distribution."""
    return jnp.exp(-jnp.exp(-logits))


def gumbel_cross_entropy(logits: Float[Array, "*n"], targets: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Element-wise BCE of the Gumbel activation of clamped logits; `targets` are 0 or 1."""
    rate = jnp.exp(-jnp.clip(logits, LOWEST, HIGHEST))  # -ln p
    # -ln(1 - p) by the form that is exact for small and for large rates
    negative = jnp.where(rate > LN2, -jnp.log1p(-jnp.exp(-rate)), -jnp.log(-jnp.expm1(-rate)))
    return jnp.where(targets > 0, rate, negative)


def drop_weights(
    labels: Int[Array, " n"], is_tail: Bool[Array, " k"], tail_share: Float[Array, ""], draws: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    """DropLoss: 0 where a sample leaves a tail class alone, else 1.

    Foreground samples never push tail classes of other labels (as in EQL). Background samples push each with a
    probability equal to the share of tail classes among the foreground labels of the batch.

    Args:
      labels: 0..K, background K.
      is_tail: classes of low image frequency.
      tail_share: of the foreground labels.
      draws: of [0, 1) for each sample and class, read in rows of background only.
    """
    classes = is_tail.shape[0]
    background = (labels == classes)[:, None]
    dropped = is_tail & jnp.where(background, draws > tail_share, True)
    return jnp.where(dropped & (one_hot(labels, classes) == 0), 0.0, 1.0)


def gumbel_loss(
    logits: Float[Array, "n k"],
    labels: Int[Array, " n"],
    is_tail: Bool[Array, " k"],
    tail_share: Float[Array, ""],
    draws: Float[Array, "n k"],
) -> Float[Array, " n"]:
    """GOL of each sample, summed over the classes; arguments of `drop_weights`."""
    weights = jax.lax.stop_gradient(drop_weights(labels, is_tail, tail_share, draws))
    return (weights * gumbel_cross_entropy(logits, one_hot(labels, logits.shape[1], logits.dtype))).sum(-1)
