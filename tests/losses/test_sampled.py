"""ACSL and GOL: reference vectors, which channels are spared, and draws that no number of devices changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from vectors import PRECISIONS, longtail_vector

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.draws import choose, smallest, uniforms
from c2am_jax.losses.methods.acsl import acsl_weights
from c2am_jax.losses.methods.gol import drop_weights, gumbel_activation, gumbel_cross_entropy, gumbel_loss
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.mesh import data_mesh

IMAGES = {"f": 1000.0, "c": 50.0, "r": 5.0}


def statistics(groups):
    counts = np.array([IMAGES[group] for group in groups])
    return ClassStatistics(counts, counts, 2000)


@PRECISIONS
def test_acsl_reference_vector(dtype, bound):
    recorded = longtail_vector("acsl")
    behind = np.r_[1:6, 0]  # the vector's background comes first
    logits = np.asarray(recorded["inputs"]["logits"], dtype)[:, behind]
    labels = (jnp.asarray(recorded["inputs"]["labels"]) - 1) % 6
    method = make_classification("acsl", statistics=statistics(recorded["inputs"]["frequency_group"]))
    with jax.enable_x64(dtype == np.float64):

        def mean(features):
            head = Head(jnp.eye(6, dtype=dtype), jnp.zeros(6, dtype))
            loss, _ = method.loss(Samples(features, labels, jnp.ones(6)), head, method.init_state(5, 6))
            return loss.mean()

        value, gradient = jax.jit(jax.value_and_grad(mean))(jnp.asarray(logits))
        # Two samples of background: floor(0.1 * 2) = 0 of them push rare and common classes.
        nobody = jnp.zeros((6, 5), bool) | jnp.array([True, True, False, False, False])
        weights = acsl_weights(jnp.asarray(logits), labels, nobody)
    assert float(value) == pytest.approx(recorded["expected"]["loss"], rel=bound)
    np.testing.assert_allclose(gradient, np.asarray(recorded["expected"]["dlogits"])[:, behind], atol=bound)
    np.testing.assert_array_equal(weights, np.asarray(recorded["expected"]["weights"])[:, behind])


def test_acsl_draws_a_tenth_and_a_hundredth_of_the_background():
    method = make_classification("acsl", statistics=statistics("fcr"))
    labels, weights = jnp.array([3] * 400 + [0, 1] + [3] * 50), jnp.array([1.0] * 402 + [0.0] * 50)

    def gradient(state):
        def total(features):
            loss, _ = method.loss(Samples(features, labels, weights), Head(jnp.eye(4), jnp.zeros(4)), state)
            return (loss * weights).sum()

        return np.asarray(jax.jit(jax.grad(total))(jnp.zeros((452, 4))))

    pushed = gradient({"step": jnp.int32(0)})[:400] > 0
    assert pushed.sum(0)[:3].tolist() == [400, 40, 4]
    other = gradient({"step": jnp.int32(1)})[:400] > 0
    assert other.sum(0)[:3].tolist() == [400, 40, 4] and (other != pushed).any()


@PRECISIONS
def test_gumbel_reference_vector(dtype, bound):
    recorded = longtail_vector("gumbel_activation")
    with jax.enable_x64(dtype == np.float64):
        logits = jnp.asarray(recorded["inputs"]["logits"], dtype)
        found = jax.jit(gumbel_activation)(logits)
        loss = jax.jit(gumbel_cross_entropy)(logits, jnp.ones_like(logits))
    np.testing.assert_allclose(found, recorded["expected"]["p"], rtol=bound)
    np.testing.assert_allclose(loss, -np.log(recorded["expected"]["p"]), rtol=bound)


def test_gumbel_cross_entropy_of_negatives_and_beyond_the_clamp():
    logits = np.linspace(-3, 8, 12).astype(np.float32)
    p = np.exp(-np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(gumbel_cross_entropy(jnp.asarray(logits), jnp.zeros(12)), -np.log1p(-p), rtol=1e-5)
    slope = jax.vmap(jax.grad(gumbel_cross_entropy))
    far = jnp.array([-50.0, -4.5, 11.0, 50.0])
    for target in (0.0, 1.0):
        np.testing.assert_array_equal(slope(far, jnp.full(4, target)), 0)
        inside = slope(jnp.asarray(logits), jnp.full(12, target))
        assert np.isfinite(inside).all() and ((inside > 0) == (target == 0)).all()


def test_foreground_always_spares_tail_classes_and_background_by_chance():
    labels, is_tail = jnp.array([0, 2, 3]), jnp.array([False, True, True])
    draws = jnp.array([[0.9] * 3, [0.9] * 3, [0.9, 0.9, 0.1]])
    found = drop_weights(labels, is_tail, jnp.float32(0.25), draws)
    np.testing.assert_array_equal(found, [[1, 0, 0], [1, 0, 1], [1, 0, 1]])


def test_gol_keeps_the_tail_share_of_background_pushes():
    method = make_classification("gol", statistics=statistics("ffr"), tail_frequency=0.01)
    labels = jnp.array([3] * 3000 + [0, 0, 0, 2])  # one foreground sample of four is of the tail
    head = Head(jnp.eye(3), jnp.full(3, -2.0))
    weights = jnp.ones(len(labels))

    def pushed(weights):
        def total(features):
            return (method.loss(Samples(features, labels, weights), head, method.init_state(3, 3))[0] * weights).sum()

        return np.asarray(jax.jit(jax.grad(total))(jnp.zeros((len(labels), 3))))[:3000] > 0

    found = pushed(weights)
    assert found[:, :2].all() and found[:, 2].mean() == pytest.approx(0.25, abs=0.03)
    # Without any foreground nothing is dropped.
    assert pushed(weights.at[3000:].set(0)).all()


def test_gol_is_the_weighted_cross_entropy():
    logits, labels = jax.random.normal(jax.random.key(3), (5, 4)), jnp.array([0, 1, 4, 3, 4])
    is_tail = jnp.array([False, False, True, True])
    draws = jax.random.uniform(jax.random.key(4), (5, 4))
    found = gumbel_loss(logits, labels, is_tail, jnp.float32(0.5), draws)
    p, targets = np.exp(-np.exp(-np.asarray(logits, np.float64))), np.eye(5)[np.asarray(labels)][:, :4]
    bce = -targets * np.log(p) - (1 - targets) * np.log1p(-p)
    expected = (bce * np.asarray(drop_weights(labels, is_tail, jnp.float32(0.5), draws))).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def rows(count, axis_name=None):
    """So many samples that are nothing but rows."""
    return Samples(jnp.zeros((count, 1)), jnp.zeros(count, int), jnp.ones(count), axis_name)


def on_devices(function, devices, *args):
    """`function` of the samples of a device and its part of the arguments, whose rows are spread over devices."""
    mesh, spec = data_mesh(jax.devices()[:devices]), PartitionSpec("data")
    samples = rows(len(args[0]) // devices, "data")
    mapped = jax.shard_map(lambda *local: function(samples, *local), mesh=mesh, in_specs=spec, out_specs=spec)
    return np.asarray(jax.jit(mapped)(*args))


def test_draws_are_those_of_the_row_whatever_the_devices():
    def draw(samples, _):
        return uniforms(5, jnp.int32(2), 3, samples)

    one, eight = (on_devices(draw, devices, jnp.zeros(16)) for devices in (1, 8))
    np.testing.assert_array_equal(one, eight)
    np.testing.assert_array_equal(one, uniforms(5, jnp.int32(2), 3, rows(16)))
    assert len(np.unique(one)) == 48 and (uniforms(6, jnp.int32(2), 3, rows(16)) != one).all()


def test_candidates_are_chosen_among_all_devices():
    rng = np.random.default_rng(0)
    order, candidates = jnp.asarray(rng.random(64), jnp.float32), jnp.asarray(rng.random(64) < 0.5)
    expected = np.zeros(64, bool)
    best = np.flatnonzero(candidates)[np.argsort(np.asarray(order)[np.asarray(candidates)])]
    expected[best[: int(0.3 * int(candidates.sum()))]] = True
    for devices in (1, 8):

        def pick(samples, c, o):
            return choose(c, o, 0.3, samples)

        np.testing.assert_array_equal(on_devices(pick, devices, candidates, order), expected)
    np.testing.assert_array_equal(choose(candidates, order, 0.3, rows(64)), expected)


def test_the_smallest_candidates_are_kept_and_all_where_there_are_fewer():
    order, candidates = jnp.array([0.5, 0.1, 0.9, 0.2, 0.3]), jnp.array([True, True, True, False, True])
    for most, expected in ((0, [0, 0, 0, 0, 0]), (2, [0, 1, 0, 0, 1]), (4, [1, 1, 1, 0, 1]), (80, [1, 1, 1, 0, 1])):
        np.testing.assert_array_equal(smallest(candidates, order, jnp.asarray(float(most)), rows(5)), expected)


@pytest.mark.parametrize("count", [1, 9, 10, 29, 30, 70, 100, 300])
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_shares_are_rounded_down(count, share):
    found = choose(jnp.ones(count, bool), jnp.linspace(0, 0.9, count), share, rows(count))
    assert int(found.sum()) == int(round(share * 100) * count // 100)
