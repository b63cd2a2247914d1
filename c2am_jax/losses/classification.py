"""One classification method of the box head: classifier, loss, inference rule, metrics and running state.

The detector and the training loop know this dataclass only; a method is added by a function that returns it and one
line in `METHODS`.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from c2am_jax.losses import cosine, seesaw
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.softmax import softmax_cross_entropy

State = Any


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
    """

    classifier: str
    logits: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, State]]
    activate: Callable[[jax.Array], jax.Array] = functools.partial(jax.nn.softmax, axis=-1)
    metrics: Callable[..., dict[str, jax.Array]] = lambda *args: {}
    init_state: Callable[[int], State] = lambda num_classes: {}
    extra_outputs: int = 0

    def scores(self, features: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        """Probabilities [N, K + 1] of one classifier."""
        return self.activate(self.logits(features, kernel, bias))


def _stateless(per_sample: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> Callable:
    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del bias, weights, axis_name
        return per_sample(features, kernel, labels), state

    return loss


def _cosine_logits(scale: float) -> Callable:
    def logits(features, kernel, bias):
        del bias
        return cosine.cosine_logits(features, kernel, scale=scale)

    return logits


def linear_logits(features: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """X W + b in float32: [N, C]."""
    return features.astype(jnp.float32) @ kernel + bias


def _softmax() -> Classification:
    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del weights, axis_name
        return softmax_cross_entropy(linear_logits(features, kernel, bias), labels), state

    return Classification("linear", linear_logits, loss)


def _cosine(scale: float = 30.0) -> Classification:
    def per_sample(features, kernel, labels):
        return cosine.cosine_softmax_loss(features, kernel, labels, scale=scale)

    return Classification("cosine", _cosine_logits(scale), _stateless(per_sample))


def _c2am(
    scale: float = 30.0,
    alpha: float = 0.5,
    background: str = "all",
    wrap: str = "literal",
    max_margin: float = math.pi / 2,
) -> Classification:
    margin = {"alpha": alpha, "background": background, "max_margin": max_margin}

    def per_sample(features, kernel, labels):
        return cosine.c2am_loss(features, kernel, labels, scale=scale, wrap=wrap, **margin)

    def metrics(features, kernel, labels, weights, axis_name=None):
        return margin_statistics(features, kernel, labels, weights, axis_name=axis_name, **margin)

    return Classification("cosine", _cosine_logits(scale), _stateless(per_sample), metrics=metrics)


def _fixed_margin(scale: float = 30.0, margin: float = 0.2) -> Classification:
    def per_sample(features, kernel, labels):
        return cosine.fixed_margin_loss(features, kernel, labels, scale=scale, margin=margin)

    return Classification("cosine", _cosine_logits(scale), _stateless(per_sample))


def _cosface(scale: float = 30.0, margin: float = 0.35) -> Classification:
    def per_sample(features, kernel, labels):
        return cosine.cosface_loss(features, kernel, labels, scale=scale, margin=margin)

    return Classification("cosine", _cosine_logits(scale), _stateless(per_sample))


def _arcface(scale: float = 30.0, margin: float = 0.5, wrap: str = "fallback") -> Classification:
    def per_sample(features, kernel, labels):
        return cosine.arcface_loss(features, kernel, labels, scale=scale, margin=margin, wrap=wrap)

    return Classification("cosine", _cosine_logits(scale), _stateless(per_sample))


def _sphereface(
    margin: int = 4, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, minimum: float = 5.0
) -> Classification:
    """Its state is the step that the annealing counts."""

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del bias, weights, axis_name
        lam = cosine.sphereface_lambda(state["step"], base=base, gamma=gamma, power=power, minimum=minimum)
        per_sample = cosine.sphereface_loss(features, kernel, labels, margin=margin, lam=lam)
        return per_sample, {"step": state["step"] + 1}

    def logits(features, kernel, bias):
        del bias
        length = jnp.linalg.norm(features.astype(jnp.float32), axis=-1, keepdims=True)
        return length * cosine.cosines(features, kernel)

    return Classification("cosine", logits, loss, init_state=lambda num_classes: {"step": jnp.zeros((), jnp.int32)})


def _seesaw(p: float = 0.8, q: float = 2.0, eps: float = 1e-2, temperature: float = 20.0) -> Classification:
    """Its state is the number of sampled RoIs of each class so far, background included."""

    def logits(features, kernel, bias):
        return seesaw.normed_logits(features, kernel, bias, temperature=temperature)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        seen = seesaw.batch_counts(labels, weights, state["counts"].shape[0])
        counts = state["counts"] + global_sum(seen, axis_name)
        parts = seesaw.seesaw_loss(logits(features, kernel, bias), labels, counts, p=p, q=q, eps=eps)
        return sum(parts), {"counts": counts}

    return Classification(
        "linear",
        logits,
        loss,
        activate=seesaw.seesaw_activation,
        init_state=lambda num_classes: {"counts": jnp.zeros(num_classes + 1)},
        extra_outputs=1,
    )


def margin_statistics(
    features: jax.Array,
    kernel: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    axis_name: str | None = None,
    **margin: Any,
) -> dict[str, jax.Array]:
    """C2AM's own signs over the weighted samples of all devices.

    Returns:
      ``margin/active``: share of (sample, class) pairs with a margin; ``margin/mean``: mean of those margins and
      ``margin/max``: their largest, radians; ``margin/wrapped``: share of pairs with theta + m > pi.
    """
    margins = cosine.c2am_margins(kernel, labels, **margin)
    counted = (weights > 0)[:, None]
    active = (margins > 0) & counted
    wrapped = active & (cosine.cosines(features, kernel) < -jnp.cos(margins))

    def total(x):
        return global_sum(x.astype(jnp.float32).sum(), axis_name)

    pairs = jnp.maximum(total(counted) * margins.shape[1], 1)
    largest = jnp.where(active, margins, 0).max()
    return {
        "margin/active": total(active) / pairs,
        "margin/mean": total(jnp.where(active, margins, 0)) / jnp.maximum(total(active), 1),
        "margin/max": largest if axis_name is None else jax.lax.pmax(largest, axis_name),
        "margin/wrapped": total(wrapped) / pairs,
    }


METHODS: dict[str, Callable[..., Classification]] = {
    "softmax": _softmax,
    "cosine": _cosine,
    "c2am": _c2am,
    "fixed_margin": _fixed_margin,
    "cosface": _cosface,
    "arcface": _arcface,
    "sphereface": _sphereface,
    "seesaw": _seesaw,
}


def method_parameters(name: str) -> dict[str, Any]:
    """Parameters of a method with their defaults, as `config.loss` lists them."""
    if name not in METHODS:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(METHODS)}")
    return {p.name: p.default for p in inspect.signature(METHODS[name]).parameters.values()}


def make_classification(name: str, **parameters: Any) -> Classification:
    """The method `name` with its `parameters` (defaults: the paper's).

    Raises:
      ValueError: unknown method, unknown parameter of it, or a value that the loss does not know.
    """
    known = method_parameters(name)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"loss {name!r} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    choices = {
        "background": cosine.BACKGROUND_RULES,
        "wrap": cosine.ARCFACE_WRAPS if name == "arcface" else cosine.C2AM_WRAPS,
    }
    for parameter, allowed in choices.items():
        if parameters.get(parameter, allowed[0]) not in allowed:
            raise ValueError(f"loss.{parameter} must be one of {', '.join(allowed)}, not {parameters[parameter]!r}")
    return METHODS[name](**parameters)
