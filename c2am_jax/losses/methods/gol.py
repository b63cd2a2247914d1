"""Gumbel optimized loss (Alexandridis et al., ECCV 2022) with DropLoss weights (Hsieh et al., AAAI 2021).

K channels without background, each of probability ``exp(-exp(-z))``. Rules of the authors' `droploss.py`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.checks import Share
from c2am_jax.losses.channels import append_background, foreground_only, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples, count_steps
from c2am_jax.losses.draws import uniforms
from c2am_jax.losses.statistics import ClassStatistics

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


def gol(statistics: ClassStatistics, tail_frequency: Share = 1.1e-3, seed: int = 0) -> Classification:
    """Lambda 1.1e-3 for LVIS v1.0, 1.77e-3 for v0.5. Its state is the step, from which the draws follow."""
    tail = statistics.image_frequency < tail_frequency

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        is_tail = jnp.asarray(tail)
        foreground = samples.foreground(logits.shape[1])
        tails = foreground & jnp.append(is_tail, False)[samples.labels]
        seen = samples.sum(foreground.sum())
        # Without any foreground nothing is dropped (reference rule).
        share = jnp.where(seen > 0, samples.sum(tails.sum()) / jnp.maximum(seen, 1), 1.0)
        draws = uniforms(seed, state["step"], logits.shape[1], samples)
        return gumbel_loss(logits, samples.labels, is_tail, share, draws), {"step": state["step"] + 1}

    return foreground_only(
        loss,
        own_activation=lambda logits: append_background(gumbel_activation(logits)),
        init_state=count_steps,
        bias_init=FIRST_BIAS,
        kernel_std=FIRST_STD,
    )
