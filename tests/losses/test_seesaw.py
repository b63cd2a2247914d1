"""Seesaw loss: reference vectors, its two factors, the counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import PRECISIONS, longtail_vector

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.methods.seesaw import (
    batch_counts,
    normed_logits,
    seesaw_activation,
    seesaw_adjustment,
    seesaw_loss,
)


@PRECISIONS
def test_reference_vector(dtype, bound):
    recorded = longtail_vector("seesaw")
    inputs, expected = recorded["inputs"], recorded["expected"]
    with jax.enable_x64(dtype == np.float64):
        logits, labels = jnp.asarray(inputs["logits"], dtype), jnp.asarray(inputs["labels"])
        counts = jnp.asarray(inputs["cum_samples_before"], dtype)
        counts = counts + batch_counts(labels, jnp.ones(labels.shape), len(counts))
        assert counts.tolist() == expected["cum_samples_after"]
        mean = jax.jit(lambda z: sum(seesaw_loss(z, labels, counts)).mean())
        value, gradient = jax.value_and_grad(mean)(logits)
    assert float(value) == pytest.approx(expected["loss"], abs=bound)
    np.testing.assert_allclose(gradient, expected["dlogits"], atol=bound)


@PRECISIONS
def test_reference_inference(dtype, bound):
    recorded = longtail_vector("seesaw_inference")
    with jax.enable_x64(dtype == np.float64):
        scores = jax.jit(seesaw_activation)(jnp.asarray(recorded["inputs"]["logits"], dtype))
    np.testing.assert_allclose(scores, recorded["expected"]["scores"], atol=bound)


def test_rarer_classes_are_spared_and_mistaken_ones_punished():
    logits = jnp.log(jnp.array([[0.1, 0.3, 0.6]]))
    counts = jnp.array([100.0, 25.0, 400.0])
    added = seesaw_adjustment(logits, jnp.array([0]), counts, p=0.5, q=1.0)
    # Mitigation (25/100)^0.5 for class 1, none for the more frequent class 2; compensation 3 and 6.
    np.testing.assert_allclose(added, [[0.0, np.log(0.5 * 3), np.log(6.0)]], rtol=1e-5)


def test_probabilities_sum_to_one_and_background_has_no_class_loss():
    logits = jax.random.normal(jax.random.key(0), (6, 7))
    np.testing.assert_allclose(seesaw_activation(logits).sum(-1), 1.0, rtol=1e-5)
    classes, objectness = seesaw_loss(logits, jnp.array([0, 5, 4, 5, 2, 1]), jnp.ones(6))
    assert (np.asarray(classes) > 0).tolist() == [True, False, True, False, True, True]
    assert (np.asarray(objectness) > 0).all()


def test_counts_grow_by_the_sampled_rois_before_they_are_used():
    method = make_classification("seesaw")
    labels, weights = jnp.array([0, 1, 1, 3]), jnp.array([1.0, 1.0, 1.0, 0.0])
    samples = Samples(jax.random.normal(jax.random.key(1), (4, 8)), labels, weights)
    head = Head(jax.random.normal(jax.random.key(2), (8, 5)), jnp.zeros(5))
    _, state = method.loss(samples, head, method.init_state(3, 8))
    assert state["counts"].tolist() == [1, 2, 0, 0]
    loss, state = method.loss(samples, head, state)
    assert state["counts"].tolist() == [2, 4, 0, 0]
    parts = seesaw_loss(method.logits(samples.features, head), labels, state["counts"])
    np.testing.assert_allclose(loss, sum(parts), rtol=1e-6)


def test_a_zero_feature_has_finite_gradients():
    gradient = jax.grad(lambda x: normed_logits(x, jnp.ones((4, 3)), jnp.zeros(3)).sum())(jnp.zeros((2, 4)))
    assert np.isfinite(gradient).all()
