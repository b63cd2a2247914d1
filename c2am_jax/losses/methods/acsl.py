"""Adaptive class suppression loss (Wang et al., CVPR 2021); rules of the authors' `acsl.py`.

K + 1 sigmoid channels, background last.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.checks import Share
from c2am_jax.losses.channels import PRIOR_BIAS, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples, count_steps
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.draws import choose, uniforms
from c2am_jax.losses.statistics import ClassStatistics

RARE_SHARE, COMMON_SHARE = 0.01, 0.1  # of the background samples that push rare and common classes


def acsl_weights(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    background_pushes: Bool[Array, "n k"],
    *,
    threshold: float = 0.7,
) -> Float[Array, "n c"]:
    """Which channels each sample trains, 0 or 1, without gradient.

    Foreground samples train their label and every channel they are mistaken for (score from `threshold` on).
    Background samples train the background channel and the classes of `background_pushes`.

    Args:
      logits: [N, K + 1].
      labels: 0..K, background K.
      background_pushes: [N, K], read in rows of background only.
      threshold: of the score.
    """
    classes = logits.shape[1] - 1
    mistaken = jax.nn.sigmoid(jax.lax.stop_gradient(logits)) >= threshold
    foreground = mistaken | (one_hot(labels, classes + 1) > 0)
    background = jnp.pad(background_pushes, ((0, 0), (0, 1)), constant_values=True)
    return jnp.where((labels == classes)[:, None], background, foreground).astype(logits.dtype)


def acsl_loss(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    background_pushes: Bool[Array, "n k"],
    *,
    threshold: float = 0.7,
) -> Float[Array, " n"]:
    """Weighted BCE summed over the channels; arguments of `acsl_weights`."""
    weights = acsl_weights(logits, labels, background_pushes, threshold=threshold)
    return (weights * binary_cross_entropy(logits, one_hot(labels, logits.shape[1], logits.dtype))).sum(-1)


def acsl(statistics: ClassStatistics, threshold: Share = 0.7, seed: int = 0) -> Classification:
    """`threshold` of scores from which a class is suppressed. Its state is the step, from which the draws follow.

    Frequent classes are pushed by all background samples, common ones by 10 % and rare ones by 1 %, drawn at each
    step (LVIS's groups by image counts).
    """
    rare, frequent = statistics.is_rare, statistics.is_frequent

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        background = (samples.labels == logits.shape[1] - 1) & (samples.weights > 0)
        order = uniforms(seed, state["step"], 2, samples)
        to_common = choose(background, order[:, 0], COMMON_SHARE, samples)
        to_rare = choose(background, order[:, 1], RARE_SHARE, samples)
        by_group = jnp.where(rare, to_rare[:, None], to_common[:, None])
        pushed = jnp.where(frequent, True, by_group)
        return acsl_loss(logits, samples.labels, pushed, threshold=threshold), {"step": state["step"] + 1}

    return Classification("linear", loss, own_activation=jax.nn.sigmoid, init_state=count_steps, bias_init=PRIOR_BIAS)
