"""Methods that score by angle: cosine softmax, C2AM, the margins of Tables 1 and 5, LDAM."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import cosine as functions
from c2am_jax.losses.classification import Classification, count_steps
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights


def stateless(per_sample: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> Callable:
    """The loss of a method that has neither state nor bias."""

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del bias, weights, axis_name
        return per_sample(features, kernel, labels), state

    return loss


def cosine_logits(scale: float) -> Callable:
    """Scores `scale * cos(theta)`, [N, C]."""

    def logits(features, kernel, bias):
        del bias
        return functions.cosine_logits(features, kernel, scale=scale)

    return logits


def cosine(scale: float = 30.0) -> Classification:
    """Cosine softmax (NormFace): the case alpha = 0 of C2AM."""

    def per_sample(features, kernel, labels):
        return functions.cosine_softmax_loss(features, kernel, labels, scale=scale)

    return Classification("cosine", cosine_logits(scale), stateless(per_sample))


def c2am(
    scale: float = 30.0,
    alpha: float = 0.5,
    background: str = "all",
    wrap: str = "literal",
    max_margin: float = math.pi / 2,
) -> Classification:
    """C2AM (the paper, Eq. 6 and 7): competitors of class i move away by m_ij."""

    margin = {"alpha": alpha, "background": background, "max_margin": max_margin}

    def per_sample(features, kernel, labels):
        return functions.c2am_loss(features, kernel, labels, scale=scale, wrap=wrap, **margin)

    def metrics(features, kernel, labels, weights, axis_name=None):
        return margin_statistics(features, kernel, labels, weights, axis_name=axis_name, **margin)

    return Classification("cosine", cosine_logits(scale), stateless(per_sample), metrics=metrics)


def fixed_margin(scale: float = 30.0, margin: float = 0.2) -> Classification:
    """One margin for all competitors (the paper, Table 5)."""

    def per_sample(features, kernel, labels):
        return functions.fixed_margin_loss(features, kernel, labels, scale=scale, margin=margin)

    return Classification("cosine", cosine_logits(scale), stateless(per_sample))


def cosface(scale: float = 30.0, margin: float = 0.35) -> Classification:
    """CosFace (Wang et al., CVPR 2018): `s (cos(theta_y) - m)` for the own class."""

    def per_sample(features, kernel, labels):
        return functions.cosface_loss(features, kernel, labels, scale=scale, margin=margin)

    return Classification("cosine", cosine_logits(scale), stateless(per_sample))


def arcface(scale: float = 30.0, margin: float = 0.5, wrap: str = "fallback") -> Classification:
    """ArcFace (Deng et al., CVPR 2019): `s cos(theta_y + m)` for the own class."""

    def per_sample(features, kernel, labels):
        return functions.arcface_loss(features, kernel, labels, scale=scale, margin=margin, wrap=wrap)

    return Classification("cosine", cosine_logits(scale), stateless(per_sample))


def sphereface(
    margin: int = 4, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, minimum: float = 5.0
) -> Classification:
    """Its state is the step that the annealing counts."""

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        del bias, weights, axis_name
        lam = functions.sphereface_lambda(state["step"], base=base, gamma=gamma, power=power, minimum=minimum)
        per_sample = functions.sphereface_loss(features, kernel, labels, margin=margin, lam=lam)
        return per_sample, {"step": state["step"] + 1}

    def logits(features, kernel, bias):
        del bias
        length = jnp.linalg.norm(features.astype(jnp.float32), axis=-1, keepdims=True)
        return length * functions.cosines(features, kernel)

    return Classification("cosine", logits, loss, init_state=count_steps)


def ldam(
    statistics: ClassStatistics,
    scale: float = 30.0,
    max_margin: float = 0.5,
    reweight_from: int = 0,
    beta: float = 0.9999,
) -> Classification:
    """LDAM (Cao et al., NeurIPS 2019); from step `reweight_from` on (0: never) with effective-number weights (DRW)."""
    margins = np.append(functions.ldam_margins(statistics.instances, max_margin), 0.0)
    weights = np.append(effective_number_weights(statistics.instances, beta), 1.0)

    def loss(features, kernel, bias, labels, _, state, axis_name=None):
        del bias, axis_name
        own = functions.ldam_loss(features, kernel, labels, jnp.asarray(margins, jnp.float32), scale=scale)
        deferred = (reweight_from > 0) & (state["step"] >= reweight_from)
        own = own * jnp.where(deferred, jnp.asarray(weights, own.dtype)[labels], 1.0)
        return own, {"step": state["step"] + 1}

    return Classification("cosine", cosine_logits(scale), loss, init_state=count_steps)


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
    margins = functions.c2am_margins(kernel, labels, **margin)
    counted = (weights > 0)[:, None]
    active = (margins > 0) & counted
    wrapped = active & (functions.cosines(features, kernel) < -jnp.cos(margins))

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
