"""Methods of independent sigmoid channels: EQL, EQL v2, EFL, BALMS's balanced sigmoid, ECM."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import sigmoid
from c2am_jax.losses.classification import Classification, linear_logits
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.focal import equalized_focal_loss
from c2am_jax.losses.statistics import ClassStatistics


def append_background(scores: jax.Array) -> jax.Array:
    """Scores [N, K] of classes and behind them that of none, one minus the largest: [N, K + 1]."""
    return jnp.concatenate([scores, 1 - scores.max(-1, keepdims=True)], -1)


def foreground_only(loss: Callable[..., tuple[jax.Array, Any]], **options: Any) -> Classification:
    """A method of K channels without background, sigmoids unless `options` of the Classification say otherwise."""
    defaults = {
        "activate": lambda logits: append_background(jax.nn.sigmoid(logits)),
        "extra_outputs": -1,
        "bias_init": sigmoid.PRIOR_BIAS,
    }
    return Classification("linear", linear_logits, loss, **defaults | options)


def sigmoid_with_background(logits: jax.Array) -> jax.Array:
    """K + 1 channels: each class times "not background"."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores[:, :-1] * (1 - scores[:, -1:]), scores[:, -1:]], -1)


def no_gradients(num_classes: int) -> dict[str, jax.Array]:
    """First state of a method that adds up the positive and negative gradients of each class."""
    return {"positive": jnp.zeros(num_classes), "negative": jnp.zeros(num_classes), "seen": jnp.zeros((), bool)}


def gradient_ratio(state: dict[str, jax.Array], *, before: float) -> jax.Array:
    """Positive over negative gradient of each class so far, [K]; `before` anything was seen."""
    return jnp.where(state["seen"], state["positive"] / (state["negative"] + 1e-10), before)


def add_gradients(
    state: dict[str, jax.Array], pulls: jax.Array, pushes: jax.Array, weights: jax.Array, axis_name: str | None
) -> dict[str, jax.Array]:
    """The state after samples [N] whose positive and negative gradients are `pulls` and `pushes`, [N, K]."""
    counted = (weights > 0)[:, None]
    total = lambda x: global_sum(jnp.where(counted, x, 0).sum(0), axis_name)  # noqa: E731
    positive, negative = state["positive"] + total(pulls), state["negative"] + total(pushes)
    return {"positive": positive, "negative": negative, "seen": jnp.ones((), bool)}


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
        ratio = gradient_ratio(state, before=100.0)
        logits = linear_logits(features, kernel, bias)
        value, pulls, pushes = sigmoid.eql_v2_loss(logits, labels, ratio, gamma=gamma, mu=mu, alpha=alpha)
        return value, add_gradients(state, pulls, pushes, weights, axis_name)

    return Classification(
        "linear",
        linear_logits,
        loss,
        activate=sigmoid_with_background,
        init_state=no_gradients,
        bias_init=sigmoid.PRIOR_BIAS,
    )


def efl(gamma: float = 2.0, scale: float = 8.0, alpha: float = 0.25) -> Classification:
    """Equalized focal loss (Li et al., CVPR 2022) as a head of K sigmoids; state as in EQL v2.

    Divided by the number of positive samples of all devices, the published normaliser, instead of that of all samples.
    """

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        ratio = jnp.minimum(gradient_ratio(state, before=1.0), 1.0)
        logits = linear_logits(features, kernel, bias)
        value, slope = equalized_focal_loss(logits, labels, ratio, gamma=gamma, scale=scale, alpha=alpha)
        counted = weights > 0
        samples, positives = (
            global_sum(x.sum().astype(logits.dtype), axis_name) for x in (counted, counted & (labels < logits.shape[1]))
        )
        share = 1 / jnp.maximum(positives, 1)
        is_label = sigmoid.one_hot(labels, logits.shape[1], logits.dtype)
        pulls, pushes = slope * share * is_label, slope * share * (1 - is_label)
        return value * samples * share, add_gradients(state, pulls, pushes, weights, axis_name)

    return foreground_only(loss, init_state=no_gradients)


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
