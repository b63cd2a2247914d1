"""Every method on one head: eight devices compute what one does, and its state survives a checkpoint."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.detection import global_mean
from c2am_jax.losses.methods import METHODS
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.mesh import data_mesh

# Others have arrays of their own: test_decoupled.py.
OWN_ARRAYS = {"lws", "bags", "disalign", "balms", "loce", "forest"}
ONE_STAGE = [name for name in METHODS if name not in OWN_ARRAYS]
CLASSES, WIDTH, ROWS, STEPS = 6, 8, 64, 3
COUNTS = np.array([5000.0, 900.0, 150.0, 60.0, 9.0, 2.0])


def batches():
    """Features, labels and weights of each step; most samples are background, some are padding."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        labels = np.where(rng.random(ROWS) < 0.6, CLASSES, rng.integers(0, CLASSES, ROWS))
        weights = (rng.random(ROWS) < 0.9).astype(np.float32)
        yield rng.standard_normal((ROWS, WIDTH)).astype(np.float32), labels.astype(np.int32), weights


def make(name):
    # The largest count is half of the images, so that tails by frequency and by count exist.
    method = make_classification(name, statistics=ClassStatistics(COUNTS, COUNTS, 10000))
    kernel = 0.5 * jax.random.normal(jax.random.key(1), (WIDTH, CLASSES + 1 + method.extra_outputs))
    bias = jnp.full(kernel.shape[1], method.bias_init) if method.classifier == "linear" else None
    return method, kernel, bias


@functools.cache
def stepper(name, devices):
    """``(kernel, bias, state, features, labels, weights) -> loss, gradients, new state``, jitted over devices."""
    method, _, _ = make(name)
    mesh = data_mesh(jax.devices()[:devices])
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def local(parameters, state, features, labels, weights):
        parameters = jax.tree.map(lambda p: jax.lax.pcast(p, "data", to="varying"), parameters)

        def mean(parameters):
            loss, new = method.loss(Samples(features, labels, weights, "data"), Head(*parameters), state)
            return global_mean((loss * weights).sum(), weights.sum(), "data"), new

        (value, new), gradient = jax.value_and_grad(mean, has_aux=True)(parameters)
        return value, jax.lax.psum(gradient, "data"), new

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(whole, whole, rows, rows, rows), out_specs=whole)
    return jax.jit(mapped)


def run(name, devices, state=None, first=0):
    """What each step from `first` on gives, states included."""
    method, kernel, bias = make(name)
    state = method.init_state(CLASSES, WIDTH) if state is None else state
    history = []
    for batch in list(batches())[first:]:
        value, gradient, state = stepper(name, devices)((kernel, bias), state, *batch)
        history.append((value, gradient, state))
    return history


@functools.cache
def undisturbed(name):
    return run(name, 1)


@pytest.mark.parametrize("name", ONE_STAGE)
def test_eight_devices_compute_what_one_does(name):
    for one, eight in zip(undisturbed(name), run(name, 8), strict=True):
        for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(eight), strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path))
    value, (gradient, _), _ = undisturbed(name)[-1]
    assert np.isfinite(value) and value > 0 and float(jnp.abs(gradient).max()) > 0


@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_saved_state_goes_on_as_if_nothing_had_happened(name, tmp_path):
    history = undisturbed(name)
    state = history[0][2]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert jax.tree.structure(state) == jax.tree.structure(make(name)[0].init_state(CLASSES, WIDTH))
    if not jax.tree.leaves(state):
        return  # nothing to save
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        loaded = checkpointer.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, state))
    for a, b in zip(jax.tree.leaves(history[1:]), jax.tree.leaves(run(name, 1, loaded, first=1)), strict=True):
        np.testing.assert_array_equal(a, b)
