"""One classification method of the box head: classifier, loss, inference rule, metrics and running state.

The detector and the training loop know these dataclasses only; `losses.methods` makes methods by name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from c2am_jax.losses.detection import global_sum

State = Any


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """The sampled RoIs of this device, N of a batch that it may share with other devices.

    Attributes:
      features: [N, D].
      labels: [N], 0..K; background is K.
      weights: [N], 1 for sampled RoIs, 0 for padding.
      axis_name: mesh axis of the devices that share the batch, None for one device.
    """

    features: jax.Array
    labels: jax.Array
    weights: jax.Array
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})

    def sum(self, x: jax.Array) -> jax.Array:
        """Sum of `x` over the devices."""
        return global_sum(x, self.axis_name)

    def max(self, x: jax.Array) -> jax.Array:
        """Largest `x` of the devices."""
        return x if self.axis_name is None else jax.lax.pmax(x, self.axis_name)

    def gather(self, x: jax.Array) -> jax.Array:
        """The rows of all devices, in their order."""
        return x if self.axis_name is None else jax.lax.all_gather(x, self.axis_name, tiled=True)

    @property
    def device(self) -> tuple[jax.Array | int, int]:
        """Number of this device, and how many there are."""
        axis = self.axis_name
        return (0, 1) if axis is None else (jax.lax.axis_index(axis), jax.lax.axis_size(axis))

    @property
    def first_row(self) -> jax.Array | int:
        """Position of this device's first sample among those of all."""
        return self.device[0] * len(self.labels)

    @property
    def count(self) -> jax.Array:
        """Samples of all devices without padding, at least 1."""
        return jnp.maximum(self.sum(self.weights.sum()), 1.0)

    def foreground(self, classes: int) -> jax.Array:
        """Which samples are of one of the K classes, bool [N]; padding is not."""
        return (self.weights > 0) & (self.labels < classes)

    def class_sums(self, values: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
        """Sum over all devices of the values [N] of each class's foreground samples, and their number: [K] each."""
        label = jnp.where(self.foreground(classes), self.labels, classes)
        parts = (jnp.zeros(classes).at[label].add(x, mode="drop") for x in (values, jnp.ones_like(values)))
        total, number = (self.sum(part) for part in parts)
        return total, number


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """A classifier's arrays: kernel [D, C], bias [C] or None, and the method's `extra_parameters` by name."""

    kernel: jax.Array
    bias: jax.Array | None = None
    extra: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    def linear(self, features: jax.Array) -> jax.Array:
        """X W + b: [N, C]."""
        return linear_logits(features, self.kernel, self.bias)


@dataclasses.dataclass(frozen=True)
class Classification:
    """A method. Shapes: features [N, D], kernel [D, C], bias [C] or None; C = K + 1 + `extra_outputs`.

    Attributes:
      classifier: "linear" (kernel and bias) or "cosine" (kernel only).
      loss: ``(samples, head, state) -> (per-sample loss [N], new state)``; the caller drops the loss of padding. State
        is updated from sums over all devices, so it does not depend on their number.
      own_logits: ``(features, head) -> [N, L]``; None for inner products, X W + b.
      own_activation: ``logits [N, L] -> probabilities [N, K + 1]``, background last; None for softmax.
      metrics: ``(samples, head) -> {name: scalar}``, global values to log.
      init_state: ``(num_classes, D) -> state``, a pytree of arrays; {} for stateless methods.
      extra_outputs: columns of the classifier in addition to K + 1.
      bias_init: first value of a linear classifier's bias.
      kernel_std: standard deviation of a linear classifier's first weights.
      extra_parameters: ``(num_classes, D, draw_key) -> {name: array}``, a method's arrays other than kernel and bias;
        `draw_key()` gives a PRNG key. The box head holds them as ``cls_extra.NAME`` (integers are constants, all others
        can train) and hands them over as ``head.extra``.
      after_epoch: ``(state, {name: sum}) -> state`` on the host, or None: what a method does when an epoch is over,
        given the entries `measured` of the states that `loss` makes of each batch of held-out images
        (`config.data.held_out`), added up.
      measured: names of those entries.
    """

    classifier: str
    loss: Callable[[Samples, Head, State], tuple[jax.Array, State]]
    own_logits: Callable[[jax.Array, Head], jax.Array] | None = None
    own_activation: Callable[[jax.Array], jax.Array] | None = None
    metrics: Callable[[Samples, Head], dict[str, jax.Array]] = lambda samples, head: {}
    init_state: Callable[[int, int], State] = lambda num_classes, width: {}
    extra_outputs: int = 0
    bias_init: float = 0.0
    kernel_std: float = 0.01
    extra_parameters: Callable[[int, int, Callable[[], jax.Array]], dict[str, jax.Array]] = lambda *args: {}
    after_epoch: Callable[[State, dict[str, Any]], State] | None = None
    measured: tuple[str, ...] = ()

    def logits(self, features: jax.Array, head: Head) -> jax.Array:
        """What inference reads, [N, L]; a cascade averages them over its stages."""
        return head.linear(features) if self.own_logits is None else self.own_logits(features, head)

    def activate(self, logits: jax.Array) -> jax.Array:
        """The inference rule: probabilities [N, K + 1]."""
        return jax.nn.softmax(logits, axis=-1) if self.own_activation is None else self.own_activation(logits)

    def scores(self, features: jax.Array, head: Head) -> jax.Array:
        """Probabilities [N, K + 1] of one classifier."""
        return self.activate(self.logits(features, head))


def linear_logits(features: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """X W + b (or X W) in float32 at least: [N, C]."""
    features = features if features.dtype == jnp.float64 else features.astype(jnp.float32)
    return features @ kernel if bias is None else features @ kernel + bias


def count_steps(num_classes: int, width: int) -> dict[str, jax.Array]:
    """First state of a method that only counts training steps."""
    return {"step": jnp.zeros((), jnp.int32)}
