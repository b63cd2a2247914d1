"""What losses with one sigmoid per class share: targets, scores, and the gradients that each class got so far.

Logits are [N, K] (foreground classes only) or [N, K + 1] (background last); labels 0..K, background K. Losses give one
value per sample [N], the sum over the channels; targets are one-hot, weights carry no gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2am_jax.losses.classification import Classification, Samples

Logits = Float[Array, "n c"]
Labels = Int[Array, " n"]
PRIOR_BIAS = -math.log(999)  # a prior of 0.001, so that K channels start with a small loss


def one_hot(labels: Labels, channels: int, dtype=jnp.float32) -> Float[Array, "n c"]:
    """Targets [N, channels]; labels beyond the last channel have none."""
    return (labels[:, None] == jnp.arange(channels)[None]).astype(dtype)


def append_background(scores: jax.Array) -> jax.Array:
    """Scores [N, K] of classes and behind them that of none, one minus the largest: [N, K + 1]."""
    return jnp.concatenate([scores, 1 - scores.max(-1, keepdims=True)], -1)


def foreground_only(loss: Callable[..., tuple[jax.Array, Any]], **options: Any) -> Classification:
    """A method of K channels without background, sigmoids unless `options` of the Classification say otherwise."""
    defaults = {
        "own_activation": lambda logits: append_background(jax.nn.sigmoid(logits)),
        "extra_outputs": -1,
        "bias_init": PRIOR_BIAS,
    }
    return Classification("linear", loss, **defaults | options)


def sigmoid_with_background(logits: jax.Array) -> jax.Array:
    """K + 1 channels: each class times "not background"."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores[:, :-1] * (1 - scores[:, -1:]), scores[:, -1:]], -1)


def no_gradients(num_classes: int, width: int) -> dict[str, jax.Array]:
    """First state of a method that adds up the positive and negative gradients of each class."""
    return {"positive": jnp.zeros(num_classes), "negative": jnp.zeros(num_classes), "seen": jnp.zeros((), bool)}


def gradient_ratio(state: dict[str, jax.Array], *, before: float) -> jax.Array:
    """Positive over negative gradient of each class so far, [K]; `before` anything was seen."""
    return jnp.where(state["seen"], state["positive"] / (state["negative"] + 1e-10), before)


def add_gradients(
    state: dict[str, jax.Array], pulls: jax.Array, pushes: jax.Array, samples: Samples
) -> dict[str, jax.Array]:
    """The state after samples [N] whose positive and negative gradients are `pulls` and `pushes`, [N, K]."""
    counted = (samples.weights > 0)[:, None]
    found = {"positive": pulls, "negative": pushes}
    new = {name: state[name] + samples.sum(jnp.where(counted, x, 0).sum(0)) for name, x in found.items()}
    return new | {"seen": jnp.ones((), bool)}
