"""Adaptive class suppression loss (Wang et al., CVPR 2021); rules of the authors' `acsl.py`.

K + 1 sigmoid channels, background last.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.sigmoid import one_hot

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
