"""All classification methods by name.

A method is a function from its parameters to a `Classification`, and one line in `METHODS`; one that has a parameter
`statistics` is told how often each class occurs in the training set.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import cosine, seesaw, sigmoid
from c2am_jax.losses.classification import Classification, linear_logits
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.softmax import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights


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

    return Classification("cosine", logits, loss, init_state=_count_steps)


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


def _cbl(statistics: ClassStatistics, beta: float = 0.999, background_weight: float = 1.0) -> Classification:
    """Class-balanced loss (Cui et al., CVPR 2019), softmax form; instance counts, divided by N."""
    weights = np.append(effective_number_weights(statistics.instances, beta), background_weight)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        plain = softmax_cross_entropy(linear_logits(features, kernel, bias), labels)
        return jnp.asarray(weights, plain.dtype)[labels] * plain, state

    return Classification("linear", linear_logits, loss)


def _ldam(
    statistics: ClassStatistics,
    scale: float = 30.0,
    max_margin: float = 0.5,
    reweight_from: int = 0,
    beta: float = 0.9999,
) -> Classification:
    """LDAM (Cao et al., NeurIPS 2019); from step `reweight_from` on (0: never) with effective-number weights (DRW)."""
    margins = np.append(cosine.ldam_margins(statistics.instances, max_margin), 0.0)
    weights = np.append(effective_number_weights(statistics.instances, beta), 1.0)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del bias, axis_name
        own = cosine.ldam_loss(features, kernel, labels, jnp.asarray(margins, jnp.float32), scale=scale)
        deferred = (reweight_from > 0) & (state["step"] >= reweight_from)
        own = own * jnp.where(deferred, jnp.asarray(weights, own.dtype)[labels], 1.0)
        return own, {"step": state["step"] + 1}

    return Classification("cosine", _cosine_logits(scale), loss, init_state=_count_steps)


def _count_steps(num_classes: int) -> dict[str, jax.Array]:
    del num_classes
    return {"step": jnp.zeros((), jnp.int32)}


def _balanced_softmax(statistics: ClassStatistics, background_share: float = 0.75) -> Classification:
    """Balanced softmax (Ren et al., NeurIPS 2020, Eq. 3): ln of instance counts is added to the logits in training.

    The paper has no background class; here it counts as `background_share` of all samples, the RoI sampler's share.
    """
    counts = statistics.instances
    prior = np.log(np.append(counts, counts.sum() * background_share / (1 - background_share)))

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return softmax_cross_entropy(logits + jnp.asarray(prior - prior.max(), logits.dtype), labels), state

    return Classification("linear", linear_logits, loss)


def _foreground_sigmoid(logits: jax.Array) -> jax.Array:
    """K channels without background, whose probability is that of no class."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores, 1 - scores.max(-1, keepdims=True)], -1)


def _foreground_only(loss: Callable[..., tuple[jax.Array, Any]]) -> Classification:
    """A stateless method of K sigmoid channels."""
    options = {"activate": _foreground_sigmoid, "extra_outputs": -1, "bias_init": sigmoid.PRIOR_BIAS}
    return Classification("linear", linear_logits, loss, **options)


def _sigmoid_with_background(logits: jax.Array) -> jax.Array:
    """K + 1 channels: each class times "not background"."""
    scores = jax.nn.sigmoid(logits)
    return jnp.concatenate([scores[:, :-1] * (1 - scores[:, -1:]), scores[:, -1:]], -1)


def _eql(statistics: ClassStatistics, tail_frequency: float = 1.1e-3) -> Classification:
    """Equalization loss (Tan et al., CVPR 2020); lambda 1.1e-3 for LVIS v1.0, 1.77e-3 for v0.5, of image frequency."""
    tail = statistics.image_frequency < tail_frequency

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.eql_loss(logits, labels, jnp.asarray(tail, logits.dtype)), state

    return _foreground_only(loss)


def _eql_v2(gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0) -> Classification:
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
        activate=_sigmoid_with_background,
        init_state=init_state,
        bias_init=sigmoid.PRIOR_BIAS,
    )


def _balanced_sigmoid(statistics: ClassStatistics) -> Classification:
    """BALMS's balanced sigmoid (its LVIS code), without the meta re-weighter; image frequencies."""
    bounds = 1e-6, 1 - 1e-6
    frequency = np.clip(statistics.image_frequency, *bounds)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.balanced_sigmoid_loss(logits, labels, jnp.asarray(frequency, logits.dtype)), state

    return _foreground_only(loss)


def _ecm(statistics: ClassStatistics, background_ratio: float = 6.3313) -> Classification:
    """Effective class-margin loss (Cho and Krähenbühl, ECCV 2022); background counts `background_ratio` times all."""
    counts = np.maximum(statistics.image_count, 1.0)
    counts = np.append(counts, background_ratio * counts.sum())

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del axis_name
        logits = linear_logits(features, kernel, bias)
        return sigmoid.ecm_loss(logits, labels, jnp.asarray(counts, logits.dtype)), state

    return Classification(
        "linear", linear_logits, loss, activate=_sigmoid_with_background, bias_init=sigmoid.PRIOR_BIAS
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
    "cbl": _cbl,
    "ldam": _ldam,
    "balanced_softmax": _balanced_softmax,
    "balanced_sigmoid": _balanced_sigmoid,
    "eql": _eql,
    "eql_v2": _eql_v2,
    "ecm": _ecm,
}


def method_parameters(name: str) -> dict[str, Any]:
    """Parameters of a method with their defaults, as `config.loss` lists them."""
    if name not in METHODS:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "statistics"}


def make_classification(name: str, statistics: ClassStatistics | None = None, **parameters: Any) -> Classification:
    """The method `name` with its `parameters` (defaults: the paper's).

    `statistics` of the training set, for the methods that use them; without, all classes count alike (enough to look at
    scores, shapes and programs, and wrong to train with).

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
    if "statistics" in inspect.signature(METHODS[name]).parameters:
        return METHODS[name](statistics or ClassStatistics.uniform(1), **parameters)
    return METHODS[name](**parameters)
