"""Sums and means of the detection losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.detection import (
    binary_cross_entropy,
    box_regression_sum,
    global_mean,
    mask_mean_sum,
    smooth_l1,
)


def test_binary_cross_entropy_is_exact_where_naive_formulas_overflow():
    logits = jnp.array([-200.0, -1.0, 0.0, 2.0, 200.0])
    np.testing.assert_allclose(
        binary_cross_entropy(logits, jnp.ones(5)), [200, np.log1p(np.e), np.log(2), np.log1p(np.exp(-2)), 0], rtol=1e-6
    )


def test_binary_cross_entropy_pushes_a_logit_of_zero_both_ways_alike():
    gradient = jax.vmap(jax.grad(binary_cross_entropy))(jnp.zeros(2), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(gradient, [0.5, -0.5])


def test_smooth_l1_joins_its_two_parts_and_is_l1_for_beta_zero():
    x = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(smooth_l1(x, 1.0), [1.5, 0.125, 0, 0.125, 1.5])
    np.testing.assert_allclose(smooth_l1(x, 0.0), jnp.abs(x))


def test_l1_has_no_slope_where_nothing_differs():
    slope = jax.vmap(jax.grad(lambda x: smooth_l1(x, 0.0)))(jnp.array([-2.0, -0.0, 0.0, 3.0]))
    np.testing.assert_array_equal(slope, [-1, 0, 0, 1])


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_smooth_l1_is_infinite_with_slope_one_at_infinity(beta):
    value, slope = jax.vmap(jax.value_and_grad(lambda x: smooth_l1(x, beta)))(jnp.array([-jnp.inf, jnp.inf]))
    np.testing.assert_array_equal(value, [np.inf, np.inf])
    np.testing.assert_array_equal(slope, [-1, 1])


def test_rows_that_are_not_positive_give_neither_loss_nor_gradient():
    deltas = jnp.ones((2, 4))
    targets = jnp.array([[0.0] * 4, [jnp.inf] * 4])
    positive = jnp.array([True, False])
    value, gradient = jax.value_and_grad(lambda d: box_regression_sum(d, targets, positive, beta=0.0))(deltas)
    assert float(value) == 4 and (gradient == jnp.array([[1.0] * 4, [0.0] * 4])).all()
    logits = jnp.zeros((2, 3, 3))
    total = mask_mean_sum(logits, jnp.ones((2, 3, 3)), positive)
    assert float(total) == pytest.approx(np.log(2))


def test_mean_of_nothing_is_zero():
    assert float(global_mean(jnp.array(0.0), jnp.array(0), None)) == 0
    assert float(global_mean(jnp.array(6.0), jnp.array(4), None)) == 1.5


def test_softmax_cross_entropy_equals_log_softmax_and_keeps_tiny_losses():
    logits = jnp.array([[1.0, 2.0, 3.0], [50.0, 0.0, 0.0]])
    loss = softmax_cross_entropy(logits, jnp.array([0, 0]))
    assert float(loss[0]) == pytest.approx(-float(jax.nn.log_softmax(logits)[0, 0]), rel=1e-6)
    assert float(loss[1]) == pytest.approx(2 * np.exp(-50.0), rel=1e-5)
