"""Pure functions that two-stage methods are made of, and that no recorded vector is left out."""

import ast
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import LONGTAIL, PRECISIONS, longtail_vector

from c2am_jax.losses.methods.forest import forest_logits
from c2am_jax.losses.methods.loce import equilibrium_loss


def test_every_recorded_vector_has_a_test():
    if not LONGTAIL.is_file():
        pytest.skip(f"the reference vectors are not at {LONGTAIL}")
    recorded = {v["id"] for v in json.loads(LONGTAIL.read_text())["vectors"]}
    here = Path(__file__).parent
    tested = set()  # string literals in the tests' code: names in comments and in longer texts do not count
    for file in (*here.glob("test_*.py"), here.parent / "data" / "test_sampler.py"):
        nodes = ast.walk(ast.parse(file.read_text()))
        tested |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert len(recorded) == 20 and not recorded - tested


@PRECISIONS
def test_equilibrium_loss_reference_vector(dtype, bound):
    recorded = longtail_vector("equilibrium_loss")
    with jax.enable_x64(dtype == np.float64):
        logits, scores = (jnp.asarray(recorded["inputs"][key], dtype) for key in ("logits", "mean_scores"))
        labels = jnp.asarray(recorded["inputs"]["labels"])
        value, gradient = jax.jit(jax.value_and_grad(lambda z: equilibrium_loss(z, labels, scores).mean()))(logits)
    assert float(value) == pytest.approx(recorded["expected"]["loss"], rel=bound)
    np.testing.assert_allclose(gradient, recorded["expected"]["dlogits"], atol=bound)


def test_mean_scores_get_no_gradient():
    logits, labels = jax.random.normal(jax.random.key(0), (3, 4)), jnp.array([0, 1, 3])
    gradient = jax.grad(lambda q: equilibrium_loss(logits, labels, q).sum())(jnp.full(4, 0.3))
    np.testing.assert_array_equal(gradient, 0)


@PRECISIONS
def test_forest_calibration_reference_vector(dtype, bound):
    recorded = longtail_vector("forest_calibration")
    with jax.enable_x64(dtype == np.float64):
        fine = jnp.asarray(recorded["inputs"]["fine_logits"], dtype)
        parents = [jnp.asarray(logits, dtype) for logits in recorded["inputs"]["parent_logits"]]
        parent_of = [jnp.asarray(indices) for indices in recorded["inputs"]["parent_of"]]
        found = jax.nn.softmax(jax.jit(forest_logits)(fine, parents, parent_of))
    np.testing.assert_allclose(found, recorded["expected"]["scores"], rtol=bound)


def test_parents_that_know_nothing_change_nothing():
    fine = jax.random.normal(jax.random.key(1), (2, 4))
    found = forest_logits(fine, [jnp.zeros((2, 3))], [jnp.array([0, 1, 2, 0])])
    np.testing.assert_allclose(jax.nn.softmax(found), jax.nn.softmax(fine), rtol=1e-5)
