"""Methods with arrays of their own, most of a second stage: vectors, sub-sampling, re-weighting, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from vectors import PRECISIONS, longtail_vector

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.methods.bags import bags_log_probabilities, groups_of
from c2am_jax.losses.methods.balms import balanced_share, meta_gradient, sample_weights
from c2am_jax.losses.methods.disalign import aligned_logits, generalized_weights
from c2am_jax.losses.methods.loce import draw_entries, equilibrium_loss, first_state, remember, updated_scores
from c2am_jax.losses.statistics import ClassStatistics

COUNTS = np.array([50000.0, 900.0, 150.0, 12.0, 2.0])
STATISTICS = ClassStatistics(COUNTS, np.array([60.0, 30.0, 10.0, 4.0, 1.0]), 100)
DECOUPLED = ("lws", "bags", "disalign", "balms", "loce", "forest")


def mean_and_gradient(method, logits, labels, extra, dtype):
    """Mean loss over samples and its gradient, jitted; an identity kernel makes features logits."""
    columns = logits.shape[1]

    def mean(features):
        head = Head(jnp.eye(columns, dtype=dtype), jnp.zeros(columns, dtype), extra)
        samples = Samples(features, labels, jnp.ones(len(labels), dtype))
        loss, _ = method.loss(samples, head, method.init_state(5, columns))
        return loss.mean()

    value, gradient = jax.jit(jax.value_and_grad(mean))(jnp.asarray(logits, dtype))
    return float(value), np.asarray(gradient)


def our_columns(group):
    """For each of our BAGS channels, its column in the recorded layout: groups one after the other, "others" first."""
    start, own, others = 0, np.zeros(len(group), int), []
    for index in range(4):
        members = np.flatnonzero(group == index)
        others.append(start)
        own[members] = start + 1 + np.arange(len(members))
        start += 1 + len(members)
    return np.concatenate([own, others, [start, start + 1]])


@PRECISIONS
def test_bags_vector(dtype, bound):
    recorded = longtail_vector("bags_keep_all_others")
    columns = our_columns(groups_of(np.asarray(recorded["inputs"]["instance_counts"])))
    logits = np.asarray(recorded["inputs"]["logits"])[:, columns]
    labels = jnp.asarray(recorded["inputs"]["labels"])
    with jax.enable_x64(dtype == np.float64):
        method = make_classification("bags", statistics=STATISTICS, others_ratio=1000.0)
        value, gradient = mean_and_gradient(method, logits, labels, method.extra_parameters(5, 1, None), dtype)
    assert value == pytest.approx(recorded["expected"]["loss"], rel=bound)
    np.testing.assert_allclose(gradient, np.asarray(recorded["expected"]["dlogits"])[:, columns], atol=bound)


@PRECISIONS
def test_disalign_vectors(dtype, bound):
    recorded, forward = longtail_vector("disalign_grw"), longtail_vector("disalign_forward")
    labels = jnp.asarray(recorded["inputs"]["labels"])
    np.testing.assert_allclose(generalized_weights(COUNTS), recorded["expected"]["weights"], rtol=1e-12)
    with jax.enable_x64(dtype == np.float64):
        method = make_classification("disalign", statistics=STATISTICS)
        neutral = method.extra_parameters(5, 6, lambda: jax.random.key(0))  # a 1 and b 0 leave the logits alone
        value, gradient = mean_and_gradient(method, np.asarray(recorded["inputs"]["logits"]), labels, neutral, dtype)
        given = {name: jnp.asarray(value, dtype) for name, value in forward["inputs"].items() if name != "labels"}
        aligned = aligned_logits(given["logits"], given["confidence"], given["scale"], given["bias"])
    assert value == pytest.approx(recorded["expected"]["loss"], rel=bound)
    np.testing.assert_allclose(gradient, recorded["expected"]["dlogits"], atol=bound)
    np.testing.assert_allclose(aligned, forward["expected"]["aligned"], rtol=bound)


def test_groups_begin_at_10_100_and_1000():
    np.testing.assert_array_equal(groups_of(np.array([1, 9, 10, 99, 100, 999, 1000])), [0, 0, 1, 1, 2, 2, 3])


def test_bags_scores_are_the_class_in_its_group_times_foreground():
    logits = jax.random.normal(jax.random.key(0), (3, 11))
    group = jnp.array([3, 2, 2, 1, 0])
    scores = np.exp(np.asarray(bags_log_probabilities(logits, group)))
    objectness = jax.nn.softmax(logits[:, 9:], -1)
    third = jax.nn.softmax(logits[:, np.array([1, 2, 7])], -1)  # classes 1 and 2 and their "others"
    np.testing.assert_allclose(scores[:, 1:3], third[:, :2] * objectness[:, :1], rtol=1e-5)
    np.testing.assert_allclose(scores[:, 5], objectness[:, 1], rtol=1e-6)


def test_a_bags_group_without_classes_has_a_finite_gradient():
    everyone = ClassStatistics(np.full(5, 50.0), np.full(5, 50.0), 100)
    method = make_classification("bags", statistics=everyone)
    logits, labels = jax.random.normal(jax.random.key(0), (4, 11)), jnp.array([0, 5, 5, 2])
    value, gradient = mean_and_gradient(method, logits, labels, method.extra_parameters(5, 1, None), np.float32)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, [5, 7, 8]], 0)  # "others" of the empty groups


def test_bags_draws_other_samples_at_every_step_and_the_same_again_for_the_same_step():
    method = make_classification("bags", statistics=STATISTICS, others_ratio=2.0)
    features, labels = jax.random.normal(jax.random.key(0), (64, 11)), jnp.array([3] + [5] * 63)
    samples = Samples(features, labels, jnp.ones(64))
    head = Head(jnp.eye(11), jnp.zeros(11), method.extra_parameters(5, 11, None))
    first, state = method.loss(samples, head, method.init_state(5, 11))
    again, _ = method.loss(samples, head, method.init_state(5, 11))
    second, _ = method.loss(samples, head, state)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second) and int(state["step"]) == 1


def test_lws_scales_the_weights_and_not_the_bias():
    method = make_classification("lws")
    assert method.extra_parameters(2, 4, None)["factor"].tolist() == [1, 1, 1]
    head = Head(jnp.eye(3), jnp.array([0.5, 0.0, 0.0]), {"factor": jnp.array([2.0, 1.0, 0.5])})
    np.testing.assert_allclose(method.logits(jnp.array([[1.0, 2.0, 3.0]]), head), [[2.5, 2.0, 1.5]], rtol=1e-6)


def test_reweighting_keeps_the_sum_of_foreground_and_leaves_background():
    labels, weights = jnp.array([0, 1, 1, 2, 2]), jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])  # 2 is background
    own = sample_weights(jnp.array([2.0, -2.0]), Samples(jnp.zeros((5, 1)), labels, weights))
    assert float(own[:3].sum()) == pytest.approx(3.0) and own[3:].tolist() == [1, 0]
    assert float(own[0] / own[1]) == pytest.approx(float(jax.nn.sigmoid(2.0) / jax.nn.sigmoid(-2.0)), rel=1e-5)


def test_every_class_that_occurs_weighs_the_same_in_the_meta_batch():
    labels, weights = jnp.array([0, 0, 0, 2, 3, 2]), jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])  # 3 is background
    found = balanced_share(Samples(jnp.zeros((6, 1)), labels, weights), 3)
    np.testing.assert_allclose(found, [1 / 6, 1 / 6, 1 / 6, 1 / 2, 0, 0], rtol=1e-6)


def test_meta_gradient_is_the_slope_of_the_balanced_loss_after_a_step():
    """Central differences of the whole inner step in float64, written out without automatic differentiation."""
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((12, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    labels, frequency = np.array([0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 0]), np.array([0.5, 0.1, 0.02])
    targets, foreground = np.eye(4)[labels][:, :3], labels < 3
    weights = np.append(np.ones(11), 0)  # the last is padding
    rate = 0.7

    def after(value):
        a = np.where(foreground, 1 / (1 + np.exp(-value[np.minimum(labels, 2)])), 0) * weights
        a = a * (foreground * weights).sum() / a.sum() + weights * ~foreground
        z = x @ w + b + np.where(foreground[:, None], np.log(frequency / (1 - frequency)), 0)
        d = (1 / (1 + np.exp(-z)) - targets) * a[:, None] / weights.sum()
        z = x @ (w - rate * x.T @ d) + b - rate * d.sum(0)
        plain = (np.logaddexp(0, z) - targets * z).sum(1)
        return np.mean([plain[(labels == c) & (weights > 0)].mean() for c in range(3)])

    value = np.array([0.3, -0.2, 0.1])
    expected = [(after(value + e) - after(value - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
    with jax.enable_x64(True):
        x, w, b, labels, weights = (jnp.asarray(a) for a in (x, w, b, labels, weights))
        step = jax.jit(functools.partial(meta_gradient, rate=rate))
        found = step(jnp.asarray(value), Samples(x, labels, weights), Head(w, b), jnp.asarray(frequency))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)
    assert np.abs(expected).min() > 1e-5


@pytest.mark.parametrize("name", DECOUPLED)
def test_eight_devices_equal_one(name):
    """Loss, gradients and new state of a head whose samples are split over eight devices, three steps long."""
    parameters = {"size": 3} if name == "loce" else {}
    method = make_classification(name, statistics=STATISTICS, **parameters)
    x, labels = jax.random.normal(jax.random.key(0), (64, 8)), jax.random.randint(jax.random.key(1), (64,), 0, 6)
    labels = jnp.where(jnp.arange(64) % 3 == 0, labels, 5)  # mostly background, devices differ
    weights = (jnp.arange(64) % 7 != 0).astype(jnp.float32)
    columns = 6 + method.extra_outputs
    extra = method.extra_parameters(5, 8, lambda: jax.random.key(2))
    trains = {n: v for n, v in extra.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    fixed = {n: v for n, v in extra.items() if n not in trains}
    params = jax.random.normal(jax.random.key(3), (8, columns)), jnp.zeros(columns), trains

    def step(state, x, labels, weights):
        own = jax.tree.map(lambda p: jax.lax.pcast(p, "data", to="varying"), params)

        def mean(own):
            kernel, bias, trains = own
            head = Head(kernel, bias, trains | fixed)
            loss, new = method.loss(Samples(x, labels, weights, "data"), head, state)
            total = jax.lax.psum((loss * weights).sum(), "data") / jax.lax.psum(weights.sum(), "data")
            return total, new

        (value, new), gradient = jax.value_and_grad(mean, has_aux=True)(own)
        return value, jax.lax.psum(gradient, "data"), new

    def run(devices):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
        )
        split = PartitionSpec("data")
        mapped = jax.jit(
            jax.shard_map(step, mesh=mesh, in_specs=(PartitionSpec(), split, split, split), out_specs=PartitionSpec())
        )
        state, outputs = method.init_state(5, 8), []
        for _ in range(3):
            value, gradient, state = mapped(state, x, labels, weights)
            outputs.append((value, gradient, state))
        return outputs

    one, eight = run(1), run(8)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6)
    assert float(one[0][0]) > 0


def test_a_bank_is_a_ring_of_the_newest_positives():
    state, x = first_state(2, 1, size=3), jnp.arange(1.0, 7.0)[:, None]
    samples = Samples(x, jnp.array([0, 1, 0, 2, 0, 0]), jnp.ones(6))  # 2 is background
    bank, seen = remember(state["bank"], state["seen"], samples)
    assert bank[0, :, 0].tolist() == [6, 3, 5] and bank[1, :, 0].tolist() == [2, 0, 0] and seen.tolist() == [4, 1]
    bank, seen = remember(bank, seen, Samples(x[:1] + 10, jnp.array([0]), jnp.ones(1)))
    assert bank[0, :, 0].tolist() == [6, 11, 5] and seen.tolist() == [5, 1]


def test_remembered_samples_come_from_filled_banks_and_rather_from_weak_classes():
    state = first_state(3, 1, size=2)
    _, _, nothing = draw_entries(state, jax.random.key(0))
    assert not nothing.any()
    bank = jnp.array([[[1.0], [0.0]], [[2.0], [3.0]], [[0.0], [0.0]]])
    state |= {"bank": bank, "seen": jnp.array([1, 7, 0]), "score": jnp.array([0.9, 0.1, 0.01, 0.01])}
    features, labels, valid = draw_entries(state, jax.random.key(0), classes=400, entries=2)
    assert valid.all() and set(labels.tolist()) == {0, 1}
    assert set(features[labels == 0, 0].tolist()) == {1.0} and set(features[labels == 1, 0].tolist()) == {2.0, 3.0}
    assert float((labels == 1).mean()) == pytest.approx(0.9, abs=0.05)


def test_scores_move_by_the_number_of_their_entries_and_background_stays():
    score = updated_scores(jnp.array([0.5, 0.5, 0.01]), jnp.array([1.8, 0.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(score, [0.81 * 0.5 + 0.19 * 0.9, 0.5, 0.01], rtol=1e-6)


def test_loce_adds_remembered_samples_to_the_mean():
    method = make_classification("loce", size=2, drawn_classes=2, drawn_entries=2)
    kernel, bias, x = jnp.array([[1.0, 0.5], [-1.0, 0.2]]), jnp.zeros(2), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    labels, weights = jnp.array([0, 1]), jnp.ones(2)
    samples, head = Samples(x, labels, weights), Head(kernel, bias)
    first, state = method.loss(samples, head, method.init_state(1, 2))
    plain = equilibrium_loss(x @ kernel + bias, labels, jnp.full(2, 0.01))
    np.testing.assert_allclose(first, plain, rtol=1e-6)  # nothing is remembered yet
    second, _ = method.loss(samples, head, state)
    own = equilibrium_loss(x @ kernel + bias, labels, state["score"])  # four times the one remembered sample
    assert float(second.mean()) == pytest.approx(float((own.sum() + 4 * own[0]) / 6), rel=1e-5)
    assert float(state["score"][0]) > 0.01 and float(state["score"][1]) == pytest.approx(0.01)
