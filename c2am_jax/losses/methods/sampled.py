"""Methods that spare channels by chance: ACSL and GOL. Their state is the step, from which the draws follow."""

import jax
import jax.numpy as jnp

from c2am_jax.losses import acsl as suppression
from c2am_jax.losses import gumbel
from c2am_jax.losses.classification import Classification, count_steps, linear_logits
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.draws import choose, uniforms
from c2am_jax.losses.methods.channels import append_background, foreground_only
from c2am_jax.losses.sigmoid import PRIOR_BIAS
from c2am_jax.losses.statistics import ClassStatistics


def acsl(statistics: ClassStatistics, threshold: float = 0.7, seed: int = 0) -> Classification:
    """Adaptive class suppression (Wang et al., CVPR 2021): `threshold` of scores from which a class is suppressed.

    Frequent classes are pushed by all background samples, common ones by 10 % and rare ones by 1 %, drawn anew each
    step (LVIS's groups by image counts).
    """
    rare, frequent = statistics.is_rare, statistics.is_frequent

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        logits = linear_logits(features, kernel, bias)
        background = (labels == logits.shape[1] - 1) & (weights > 0)
        order = uniforms(seed, state["step"], len(labels), 2, axis_name)
        to_common = choose(background, order[:, 0], suppression.COMMON_SHARE, axis_name)
        to_rare = choose(background, order[:, 1], suppression.RARE_SHARE, axis_name)
        by_group = jnp.where(rare, to_rare[:, None], to_common[:, None])
        pushed = jnp.where(frequent, True, by_group)
        value = suppression.acsl_loss(logits, labels, pushed, threshold=threshold)
        return value, {"step": state["step"] + 1}

    return Classification(
        "linear", linear_logits, loss, activate=jax.nn.sigmoid, init_state=count_steps, bias_init=PRIOR_BIAS
    )


def gol(statistics: ClassStatistics, tail_frequency: float = 1.1e-3, seed: int = 0) -> Classification:
    """Gumbel optimized loss (Alexandridis et al., ECCV 2022); lambda 1.1e-3 for LVIS v1.0, 1.77e-3 for v0.5."""
    tail = statistics.image_frequency < tail_frequency

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        logits = linear_logits(features, kernel, bias)
        is_tail = jnp.asarray(tail)
        foreground = (labels < logits.shape[1]) & (weights > 0)
        tails = foreground & jnp.append(is_tail, False)[labels]
        seen = global_sum(foreground.sum(), axis_name)
        # Without any foreground nothing is dropped (reference rule).
        share = jnp.where(seen > 0, global_sum(tails.sum(), axis_name) / jnp.maximum(seen, 1), 1.0)
        rows, classes = logits.shape
        draws = uniforms(seed, state["step"], rows, classes, axis_name)
        return gumbel.gumbel_loss(logits, labels, is_tail, share, draws), {"step": state["step"] + 1}

    return foreground_only(
        loss,
        activate=lambda logits: append_background(gumbel.gumbel_activation(logits)),
        init_state=count_steps,
        bias_init=gumbel.FIRST_BIAS,
        kernel_std=gumbel.FIRST_STD,
    )
