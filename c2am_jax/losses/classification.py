"""One classification method of the box head: classifier, loss, inference rule, metrics and running state.

The detector and the training loop know this dataclass only; `losses.methods` makes them by name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

State = Any
SOFTMAX = functools.partial(jax.nn.softmax, axis=-1)  # the inference rule of most methods


@dataclasses.dataclass(frozen=True)
class Classification:
    """A method. Shapes: features [N, D], kernel [D, C], bias [C] or None, labels [N], weights [N]; C = K + 1.

    Attributes:
      classifier: "linear" (kernel and bias) or "cosine" (kernel only).
      logits: ``(features, kernel, bias) -> [N, L]``, what inference reads; a cascade averages them over its stages.
      loss: ``(features, kernel, bias, labels, weights, state, axis_name) -> (per-sample loss [N], new state)``.
        `weights` is 1 for sampled RoIs, 0 for padding (whose loss the caller drops). State is updated from sums over
        `axis_name`, so it does not depend on the number of devices.
      activate: ``logits [N, L] -> probabilities [N, K + 1]``, background last: the inference rule.
      metrics: ``(features, kernel, labels, weights, axis_name) -> {name: scalar}``, global values to log.
      init_state: ``num_classes -> state``, a pytree of arrays; {} for stateless methods.
      extra_outputs: columns of the classifier besides K + 1.
      bias_init: first value of a linear classifier's bias.
      kernel_std: standard deviation of a linear classifier's first weights.
      extra_parameters: ``(num_classes, D, draw_key) -> {name: array}``, what a method has besides kernel and bias;
        `draw_key()` gives a PRNG key. The box head holds them as ``cls_extra.NAME`` (integers are constants, all others
        can train) and hands them to `logits` and `loss` as keywords.
      after_epoch: ``(state, {name: sum}) -> state`` on the host, or None: what a method does when an epoch is over,
        given the entries `measured` of the states that `loss` makes of each batch of held-out images
        (`config.data.held_out`), added up.
      measured: names of those entries.
    """

    classifier: str
    logits: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, State]]
    activate: Callable[[jax.Array], jax.Array] = SOFTMAX
    metrics: Callable[..., dict[str, jax.Array]] = lambda *args: {}
    init_state: Callable[[int], State] = lambda num_classes: {}
    extra_outputs: int = 0
    bias_init: float = 0.0
    kernel_std: float = 0.01
    extra_parameters: Callable[[int, int, Callable[[], jax.Array]], dict[str, jax.Array]] = lambda *args: {}
    after_epoch: Callable[[State, dict[str, Any]], State] | None = None
    measured: tuple[str, ...] = ()

    def scores(self, features: jax.Array, kernel: jax.Array, bias: jax.Array | None, **extra: jax.Array) -> jax.Array:
        """Probabilities [N, K + 1] of one classifier."""
        return self.activate(self.logits(features, kernel, bias, **extra))


def linear_logits(features: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """X W + b in float32 at least: [N, C]."""
    features = features if features.dtype == jnp.float64 else features.astype(jnp.float32)
    return features @ kernel + bias


def count_steps(num_classes: int) -> dict[str, jax.Array]:
    """First state of a method that only counts training steps."""
    del num_classes
    return {"step": jnp.zeros((), jnp.int32)}
