"""Methods of independent sigmoid channels: EQL, EQL v2, BALMS's balanced sigmoid, ECM."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import sigmoid
from c2am_jax.losses.classification import Classification, linear_logits
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.statistics import ClassStatistics


def foreground_sigmoid(logits: jax.Array) -> jax.Array:
    """K channels without background, whose probability is that of no class."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores, 1 - scores.max(-1, keepdims=True)], -1)


def foreground_only(loss: Callable[..., tuple[jax.Array, Any]]) -> Classification:
    """A stateless method of K sigmoid channels."""
    options = {"activate": foreground_sigmoid, "extra_outputs": -1, "bias_init": sigmoid.PRIOR_BIAS}
    return Classification("linear", linear_logits, loss, **options)


def sigmoid_with_background(logits: jax.Array) -> jax.Array:
    """K + 1 channels: each class times "not background"."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores[:, :-1] * (1 - scores[:, -1:]), scores[:, -1:]], -1)


def eql(statistics: ClassStatistics, tail_frequency: float = 1.1e-3) -> Classification:
    """Equalization loss (Tan et al., CVPR 2020); lambda 1.1e-3 for LVIS v1.0, 1.77e-3 for v0.5, of image frequency."""
    tail = statistics.image_frequency < tail_frequency

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.eql_loss(logits, labels, jnp.asarray(tail, logits.dtype)), state

    return foreground_only(loss)


def eql_v2(gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0) -> Classification:
    """Equalization loss v2 (Tan et al., CVPR 2021); its state is the gradient that each class got so far."""

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        ratio = jnp.where(state["seen"], state["positive"] / (state["negative"] + 1e-10), 100.0)
        logits = linear_logits(features, kernel, bias)
        value, pulls, pushes = sigmoid.eql_v2_loss(logits, labels, ratio, gamma=gamma, mu=mu, alpha=alpha)
        counted = (weights > 0)[:, None]
        total = lambda x: global_sum(jnp.where(counted, x, 0).sum(0), axis_name)  # noqa: E731
        new = {
            "positive": state["positive"] + total(pulls),
            "negative": state["negative"] + total(pushes),
            "seen": jnp.ones((), bool),
        }
        return value, new

    def init_state(num_classes):
        return {"positive": jnp.zeros(num_classes), "negative": jnp.zeros(num_classes), "seen": jnp.zeros((), bool)}

    return Classification(
        "linear",
        linear_logits,
        loss,
        activate=sigmoid_with_background,
        init_state=init_state,
        bias_init=sigmoid.PRIOR_BIAS,
    )


def balanced_sigmoid(statistics: ClassStatistics) -> Classification:
    """BALMS's balanced sigmoid (its LVIS code), without the meta re-weighter; image frequencies."""
    bounds = 1e-6, 1 - 1e-6
    frequency = np.clip(statistics.image_frequency, *bounds)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.balanced_sigmoid_loss(logits, labels, jnp.asarray(frequency, logits.dtype)), state

    return foreground_only(loss)


def ecm(statistics: ClassStatistics, background_ratio: float = 6.3313) -> Classification:
    """Effective class-margin loss (Cho and Krähenbühl, ECCV 2022); background counts `background_ratio` times all."""
    counts = np.maximum(statistics.image_count, 1.0)
    counts = np.append(counts, background_ratio * counts.sum())

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.ecm_loss(logits, labels, jnp.asarray(counts, logits.dtype)), state

    return Classification("linear", linear_logits, loss, activate=sigmoid_with_background, bias_init=sigmoid.PRIOR_BIAS)
