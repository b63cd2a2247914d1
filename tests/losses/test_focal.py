"""Equalized focal loss: its formula, the focal loss as a special case, the gradients it counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.methods.efl import equalized_focal_loss

LOGITS = 3 * jax.random.normal(jax.random.key(0), (6, 4))
LABELS = jnp.array([0, 1, 4, 3, 4, 2])
TARGETS = np.eye(5)[np.asarray(LABELS)][:, :4]
RATIO = jnp.array([1.0, 0.5, 0.1, 0.0])


def direct(logits, ratio):
    """The published formula, element by element."""
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    p_t, alpha_t = np.where(TARGETS > 0, p, 1 - p), np.where(TARGETS > 0, 0.25, 0.75)
    focus = 2 + 8 * (1 - np.asarray(ratio, np.float64))
    return -alpha_t * focus / 2 * (1 - p_t) ** focus * np.log(p_t)


@pytest.mark.parametrize("ratio", [RATIO, jnp.ones(4)], ids=["equalized", "plain focal"])
def test_formula(ratio):
    loss, _ = jax.jit(equalized_focal_loss)(LOGITS, LABELS, ratio)
    np.testing.assert_allclose(loss, direct(LOGITS, ratio).sum(1), rtol=1e-5)


def test_the_counted_gradients_are_the_gradients():
    gradient = jax.grad(lambda z: equalized_focal_loss(z, LABELS, RATIO)[0].sum())(LOGITS)
    _, slope = equalized_focal_loss(LOGITS, LABELS, RATIO)
    np.testing.assert_allclose(slope, np.abs(gradient), rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(np.sign(gradient), 1 - 2 * TARGETS)


def test_extreme_logits_stay_finite():
    far = jnp.array([[-500.0, 500.0, 80.0, -80.0]])
    for label in (0, 1):
        value, gradient = jax.value_and_grad(lambda z: equalized_focal_loss(z, jnp.array([label]), RATIO)[0].sum())(far)  # noqa: B023
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_it_divides_by_positives_and_focuses_on_classes_without_positive_gradients():
    method = make_classification("efl")
    weights = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    samples, head = Samples(LOGITS, LABELS, weights), Head(jnp.eye(4), jnp.zeros(4))
    loss, state = method.loss(samples, head, method.init_state(4, 4))
    counted = np.asarray(weights) > 0
    # Three positives among five samples; the caller divides by five.
    plain = direct(LOGITS, jnp.ones(4)).sum(1)[counted]
    np.testing.assert_allclose(np.asarray(loss)[counted].sum() / 5, plain.sum() / 3, rtol=1e-5)
    _, slope = equalized_focal_loss(LOGITS, LABELS, jnp.ones(4))
    slope = np.asarray(slope)[counted] / 3
    np.testing.assert_allclose(state["positive"], (slope * TARGETS[counted]).sum(0), rtol=1e-5)
    np.testing.assert_allclose(state["negative"], (slope * (1 - TARGETS[counted])).sum(0), rtol=1e-5)
    assert state["positive"][3] == 0  # its only sample is padding
    second, _ = method.loss(samples, head, state)
    ratio = jnp.minimum(state["positive"] / state["negative"], 1)
    np.testing.assert_allclose(second, direct(LOGITS, ratio).sum(1) * 5 / 3, rtol=1e-4)
