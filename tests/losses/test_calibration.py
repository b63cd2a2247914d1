"""Post-hoc calibrations: reference vectors, what they do to rare classes, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import PRECISIONS, longtail_vector

from c2am_jax.losses import Head, make_classification
from c2am_jax.losses.calibration import (
    CalibrationSettings,
    LogitStatistics,
    calibrated,
    fracal_scores,
    logn_logits,
    norcal_scores,
    tau_norm,
)
from c2am_jax.losses.statistics import ClassStatistics

COUNTS = np.array([1000.0, 100.0, 10.0])
STATISTICS = ClassStatistics(COUNTS * 3, COUNTS, 2000)
LOGITS = jax.random.normal(jax.random.key(0), (5, 4))


def scores_of(method, logits):
    """Through the classifier: an identity kernel makes features logits."""
    bias = jnp.zeros(logits.shape[1]) if method.classifier == "linear" else None
    return method.scores(logits, Head(jnp.eye(logits.shape[1]), bias))


def calibrated_softmax(name, **settings):
    given = {
        "statistics": STATISTICS,
        "logit_statistics": LogitStatistics(np.array([1.0, -1.0, -3.0, 7.0]), np.array([2.0, 1.0, 0.5, 9.0])),
        "dimension": np.array([2.0, 1.5, 1.0]),
    }
    return calibrated(make_classification("softmax"), CalibrationSettings(name=name, **settings), **given)


@PRECISIONS
def test_tau_norm_reference_vector(dtype, bound):
    recorded = longtail_vector("tau_norm")
    with jax.enable_x64(dtype == np.float64):
        rows = jnp.asarray(np.array(recorded["inputs"]["W"]), dtype)
        found = jax.jit(lambda w: tau_norm(w, tau=recorded["params"]["tau"], classes=3))(rows.T)
    np.testing.assert_allclose(found.T, recorded["expected"]["W"], rtol=bound)


@PRECISIONS
def test_norcal_reference_vector(dtype, bound):
    recorded = longtail_vector("norcal")
    with jax.enable_x64(dtype == np.float64):
        logits, counts = (jnp.asarray(recorded["inputs"][key], dtype) for key in ("logits", "image_counts"))
        found = jax.jit(lambda z: norcal_scores(z, counts, gamma=recorded["params"]["gamma"]))(logits)
    np.testing.assert_allclose(found, recorded["expected"]["scores"], rtol=bound)


def test_tau_norm_leaves_background_alone_and_a_dead_class_finite():
    kernel = jnp.array([[3.0, 0.0, 30.0], [4.0, 0.0, 40.0]])
    found = tau_norm(kernel, tau=1.0, classes=2)
    np.testing.assert_allclose(found, [[0.6, 0.0, 30.0], [0.8, 0.0, 40.0]], rtol=1e-6)


def test_logn_gives_all_classes_one_mean_and_one_spread():
    own = jax.random.normal(jax.random.key(1), (4000, 3)) * jnp.array([2.0, 1.0, 0.5]) + jnp.array([1.0, -1.0, -3.0])
    logits = jnp.concatenate([own, jnp.full((4000, 1), 0.7)], 1)
    found = logn_logits(logits, logits.mean(0), logits.std(0))
    # Moved to the smallest class mean, then divided by each class's own spread.
    np.testing.assert_allclose(found[:, :3].mean(0), logits[:, 2].mean() / logits[:, :3].std(0), rtol=1e-3)
    np.testing.assert_allclose(found[:, :3].std(0), 1.0, rtol=1e-3)
    np.testing.assert_array_equal(found[:, 3], logits[:, 3])


def test_fracal_is_the_published_division():
    frequency, dimension = jnp.array([0.5, 0.05, 0.005]), jnp.array([2.0, 1.5, 1.0])
    shifted = np.exp(np.asarray(LOGITS) - np.append(np.log10(3 * np.asarray(frequency)), 0))
    shifted /= shifted.sum(1, keepdims=True)
    divided = shifted / np.append(np.asarray(dimension) ** 2, 1)
    expected = divided / divided.sum(1, keepdims=True)
    np.testing.assert_allclose(fracal_scores(LOGITS, frequency, dimension, power=2.0), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["norcal", "fracal", "logn"])
def test_calibrated_scores_are_probabilities_that_favour_the_rare_class(name):
    plain, found = scores_of(make_classification("softmax"), LOGITS), scores_of(calibrated_softmax(name), LOGITS)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
    if name != "logn":  # whose ratio depends on the logit itself
        assert (np.asarray(found[:, 2] / found[:, 0]) > np.asarray(plain[:, 2] / plain[:, 0])).all()


@pytest.mark.parametrize(("name", "off"), [("norcal", {"gamma": 0.0}), ("tau_norm", {"tau": 0.0}), ("none", {})])
def test_a_calibration_of_no_strength_changes_nothing(name, off):
    head = Head(jax.random.normal(jax.random.key(2), (4, 4)), jnp.ones(4))
    plain = make_classification("softmax").scores(LOGITS, head)
    np.testing.assert_allclose(calibrated_softmax(name, **off).scores(LOGITS, head), plain, rtol=1e-5)


def test_tau_norm_of_a_classifier_shortens_long_weights():
    kernel = jnp.diag(jnp.array([10.0, 1.0, 0.1, 5.0]))
    method = calibrated_softmax("tau_norm", tau=1.0)
    found = method.logits(jnp.ones((1, 4)), Head(kernel, jnp.zeros(4)))
    np.testing.assert_allclose(found, [[1.0, 1.0, 1.0, 5.0]], rtol=1e-6)


def test_cosine_heads_are_calibrated_too():
    method = make_classification("c2am", alpha=0.3)
    found = calibrated(method, CalibrationSettings(name="norcal", gamma=1.0), statistics=STATISTICS)
    expected = norcal_scores(method.logits(LOGITS, Head(jnp.eye(4))), jnp.asarray(COUNTS, jnp.float32), gamma=1.0)
    np.testing.assert_allclose(scores_of(found, LOGITS), expected, rtol=1e-6)
    assert found.loss is method.loss


@pytest.mark.parametrize(
    ("method", "name", "given", "says"),
    [
        ("eql", "norcal", {"statistics": STATISTICS}, "softmax"),
        ("seesaw", "logn", {}, "softmax"),
        ("gol", "fracal", {"statistics": STATISTICS, "dimension": np.ones(3)}, "softmax"),
        (
            "c2am",
            "tau_norm",
            {"statistics": STATISTICS},
            "inner products .* such as softmax; .* take norcal, logn or fracal",
        ),
        (
            "lws",
            "tau_norm",
            {"statistics": STATISTICS},
            "inner products .* such as softmax; .* take norcal, logn or fracal",
        ),
        ("softmax", "fracal", {"statistics": STATISTICS}, "not given"),
        ("softmax", "logn", {}, "not given"),
    ],
)
def test_what_does_not_fit_is_refused(method, name, given, says):
    with pytest.raises(ValueError, match=says):
        calibrated(make_classification(method), CalibrationSettings(name=name), **given)


def test_an_unknown_calibration_lists_the_choices():
    with pytest.raises(ValueError, match="tau_norm, norcal, logn, fracal"):
        CalibrationSettings(name="temperature")
