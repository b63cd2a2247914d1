"""The losses against vectors recorded in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import generated, loss_of, value_and_gradients

from c2am_jax.losses import c2am_loss, c2am_margins

SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "c2am_vectors.json"
OWN = Path(__file__).resolve().parents[1] / "golden" / "loss_vectors.json"
VECTORS = json.loads(SHARED.read_text())["vectors"] if SHARED.is_file() else []
SINGLE = [v for v in VECTORS if "label" in v and v["id"] != "sgd_step_norm_growth"]
FLOAT32_ONLY_FINITE = {"c2am_negative_theta_1e-3", "c2am_negative_theta_exact0"}


def by_id(name):
    found = [v for v in VECTORS if v["id"] == name]
    if not found:
        pytest.skip(f"the reference vectors are not at {SHARED}")
    return found[0]


def arrays(vector):
    if "generator" in vector:
        return generated(vector["generator"])
    return np.array(vector["W"]), np.array(vector["x"])


def relative(actual, expected):
    scale = max(np.abs(expected).max(), 1e-12)
    return np.abs(actual - expected).max() / scale


def check_gradients(vector, dx, dw, bound):
    expected = vector["expected"]
    if vector.get("tolerance", {}).get("dx") != "finite_only":
        assert relative(dx, np.array(expected["dx"])) <= bound
    if "dW" in expected:
        assert np.abs(dw - np.array(expected["dW"])).max() <= bound * max(np.abs(expected["dW"]).max(), 1e-5)
        return
    for row, values in expected["dW_rows"].items():
        assert np.abs(dw[int(row)] - np.array(values)).max() <= bound * expected["dW_max_abs"]
    assert np.linalg.norm(dw) == pytest.approx(expected["dW_frobenius"], rel=bound)
    assert list(np.unravel_index(np.abs(dw).argmax(), dw.shape)) == expected["dW_argmax_abs"]


def test_all_vectors_are_covered():
    if not VECTORS:
        pytest.skip(f"the reference vectors are not at {SHARED}")
    assert len(VECTORS) == 68 and len(SINGLE) == 65  # the other three have a test of their own


@pytest.mark.parametrize("vector", SINGLE, ids=lambda v: v["id"])
def test_float64_vector(vector):
    w, x = arrays(vector)
    with jax.enable_x64(True):
        value, dx, dw = value_and_gradients(loss_of(vector), x, w, vector["label"], jnp.float64)
    tolerance = vector.get("tolerance", {})
    assert np.isfinite(dx).all() and np.isfinite(dw).all()
    if vector["id"] == "c2am_zero_feature":
        # the vector's norm floor is 1e-6; with the float64 floor dx is larger, and only has to be finite
        tolerance = {**tolerance, "dx": "finite_only"}
    assert abs(value - vector["expected"]["loss"]) <= max(1e-9, tolerance.get("loss_abs", 0))
    if not tolerance.get("must_be_finite"):
        check_gradients(vector, dx, dw, max(1e-7, tolerance.get("grad_rel", 0)))


@pytest.mark.parametrize("vector", SINGLE, ids=lambda v: v["id"])
def test_float32_vector(vector):
    w, x = arrays(vector)
    value, dx, dw = value_and_gradients(loss_of(vector), x, w, vector["label"], jnp.float32)
    assert np.isfinite([value]).all() and np.isfinite(dx).all() and np.isfinite(dw).all()
    if vector["id"] in FLOAT32_ONLY_FINITE:
        return
    assert abs(value - vector["expected"]["loss"]) <= 2e-4
    check_gradients(vector, dx, dw, vector.get("tolerance", {}).get("float32_grad_rel", 2e-3))


def test_weighted_batch_ignores_padding_rows():
    vector = by_id("c2am_batch4_weighted_mean")
    weights = jnp.array(vector["sample_weights"])
    labels = jnp.array(vector["labels"])
    with jax.enable_x64(True):
        x, w = jnp.array(vector["X"], jnp.float64), jnp.array(vector["W"], jnp.float64)

        def mean(x, w):
            per_sample = c2am_loss(x, w.T, labels)
            return (per_sample * weights).sum() / (weights > 0).sum(), per_sample

        (value, per_sample), (dx, dw) = jax.jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))(x, w)
        expected = vector["expected"]
        assert float(value) == pytest.approx(expected["loss"], abs=1e-9)
        np.testing.assert_allclose(per_sample, expected["per_sample"], atol=1e-9)
        np.testing.assert_allclose(dx, expected["dX"], atol=1e-8)
        np.testing.assert_allclose(dw, expected["dW"], rtol=1e-7, atol=1e-8)


def test_margin_matrix():
    vector = by_id("margin_matrix_5")
    with jax.enable_x64(True):
        kernel = jnp.diag(jnp.array(vector["norms"], jnp.float64))
        margins = c2am_margins(kernel, jnp.arange(5), alpha=vector["params"]["alpha"])
        np.testing.assert_allclose(margins, vector["expected"]["margins"], atol=1e-12)


def test_sgd_step_adds_the_gradient_energy_to_the_squared_norms():
    vector = by_id("sgd_step_norm_growth")
    w, x = arrays(vector)
    with jax.enable_x64(True):
        _, _, dw = value_and_gradients(loss_of(vector), x, w, vector["label"], jnp.float64)
    after = w - vector["params"]["lr"] * dw
    np.testing.assert_allclose(after, vector["expected"]["W_next"], atol=1e-9)
    np.testing.assert_allclose((after**2).sum(1), vector["expected"]["norms_sq_next"], rtol=1e-9)
    np.testing.assert_allclose((dw**2).sum(1), vector["expected"]["grad_norms_sq"], rtol=1e-7)


@pytest.mark.parametrize(
    "vector", json.loads(OWN.read_text())["vectors"] if OWN.is_file() else [], ids=lambda v: v["id"]
)
def test_own_vector(vector):
    """Vectors recorded by this code in float64 when it agreed with the reference vectors."""
    value, dx, dw = value_and_gradients(loss_of(vector), *arrays(vector)[::-1], vector["label"], jnp.float32)
    assert abs(value - vector["expected"]["loss"]) <= 2e-4
    check_gradients(vector, dx, dw, 2e-3)
