"""FASA: statistics, virtual features, groups and chances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.methods.fasa import (
    UNKNOWN,
    affinity_propagation,
    draw_virtual,
    first_chances,
    first_state,
    updated_chances,
    updated_statistics,
)
from c2am_jax.losses.statistics import ClassStatistics

CLASSES, WIDTH = 3, 4
STATISTICS = ClassStatistics(np.array([80.0, 15.0, 5.0]), np.array([40.0, 10.0, 5.0]), 50)


def state(**values):
    return first_state(first_chances(STATISTICS.instances), WIDTH) | {k: jnp.asarray(v) for k, v in values.items()}


def test_chances_start_inverse_to_the_instances():
    np.testing.assert_allclose(first_chances(STATISTICS.instances), np.array([3, 16, 48]) / 67, rtol=1e-12)


def test_a_first_batch_is_copied_and_later_ones_enter_by_the_momentum():
    rng = np.random.default_rng(0)
    labels = jnp.asarray([0, 0, 0, 1, 3, 2])
    weights = jnp.asarray([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])  # class 2 is padding
    before, features = state(), rng.standard_normal((6, WIDTH)).astype(np.float32)
    new = updated_statistics(before, Samples(jnp.asarray(features), labels, weights))
    np.testing.assert_array_equal(new["seen"], [True, True, False])
    np.testing.assert_allclose(new["mean"], [features[:3].mean(0), features[3], np.zeros(WIDTH)], atol=1e-6)
    expected = [features[:3].var(0, ddof=1), np.zeros(WIDTH), np.zeros(WIDTH)]
    np.testing.assert_allclose(new["variance"], expected, atol=1e-6)

    more = rng.standard_normal((6, WIDTH)).astype(np.float32)
    newer = updated_statistics(before | new, Samples(jnp.asarray(more), labels, weights))
    np.testing.assert_allclose(newer["mean"][0], 0.9 * features[:3].mean(0) + 0.1 * more[:3].mean(0), atol=1e-6)
    variances = 0.9 * features[:3].var(0, ddof=1) + 0.1 * more[:3].var(0, ddof=1)
    np.testing.assert_allclose(newer["variance"][0], variances, atol=1e-6)


def test_variances_of_distant_features_do_not_cancel():
    features = jnp.asarray([[1e4, 1e4, 1e4, 1e4], [1e4 + 2, 1e4, 1e4, 1e4]], jnp.float32)
    new = updated_statistics(state(), Samples(features, jnp.zeros(2, int), jnp.ones(2)))
    np.testing.assert_allclose(new["variance"][0], [2, 0, 0, 0], rtol=1e-3)


def test_virtual_features_follow_mean_variance_and_chance():
    means, variances = np.arange(12.0).reshape(3, 4), np.full((3, 4), 4.0)
    ready = state(mean=means, variance=variances, chance=[0.25, 1.0, 1.0], seen=[True, True, False], epoch=1)
    features, drawn = jax.vmap(lambda key: draw_virtual(ready, key))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(features.mean(0), means, atol=0.15)
    np.testing.assert_allclose(features.std(0), 2.0, atol=0.1)
    np.testing.assert_allclose(drawn.mean(0), [0.25, 1, 0], atol=0.03)
    assert not draw_virtual(ready | {"epoch": jnp.asarray(0)}, jax.random.key(0))[1].any()


def test_the_loss_adds_the_mean_over_virtual_features():
    method = make_classification("fasa", statistics=STATISTICS)
    rng = np.random.default_rng(1)
    kernel, bias = jnp.asarray(rng.standard_normal((WIDTH, CLASSES + 1))), jnp.zeros(CLASSES + 1)
    x, labels, weights = jnp.asarray(rng.standard_normal((5, WIDTH))), jnp.asarray([0, 1, 3, 3, 3]), jnp.ones(5)
    means = jnp.asarray(rng.standard_normal((3, WIDTH)), jnp.float32)
    ready = state(mean=means, seen=[True, True, True], chance=[0.0, 1.0, 1.0], epoch=1)
    plain = softmax_cross_entropy(x @ kernel + bias, labels)
    added = softmax_cross_entropy(means[1:] @ kernel + bias, jnp.asarray([1, 2])).mean()  # variance 0: the means
    samples, head = Samples(x, labels, weights), Head(kernel, bias)
    loss, new = method.loss(samples, head, ready)
    np.testing.assert_allclose(loss, plain + 0.1 * added, rtol=1e-5)
    np.testing.assert_allclose(new["batch_loss"], [plain[0], plain[1], 0], rtol=1e-5)
    np.testing.assert_array_equal(new["batch_count"], [1, 1, 0])
    before, _ = method.loss(samples, head, ready | {"epoch": jnp.asarray(0)})
    np.testing.assert_allclose(before, plain, rtol=1e-6)


@pytest.mark.parametrize("base", ["cosine", "c2am"])
def test_other_losses_are_augmented_too(base):
    method = make_classification("fasa", statistics=STATISTICS, base=base)
    kernel = jax.random.normal(jax.random.key(0), (WIDTH, CLASSES + 1))
    ready = state(mean=np.eye(3, WIDTH, dtype=np.float32), seen=[True] * 3, chance=[1.0] * 3, epoch=1)
    x, labels = jax.random.normal(jax.random.key(1), (4, WIDTH)), jnp.asarray([0, 1, 2, 3])
    inner = make_classification(base)
    samples, head = Samples(x, labels, jnp.ones(4)), Head(kernel)
    own, _ = inner.loss(samples, head, {})
    added, _ = inner.loss(Samples(jnp.eye(3, WIDTH), jnp.arange(3), jnp.ones(3)), head, {})
    loss, _ = method.loss(samples, head, ready)
    np.testing.assert_allclose(loss, own + 0.1 * added.mean(), rtol=1e-5)


def test_an_unknown_base_lists_the_known_ones():
    with pytest.raises(ValueError, match="base='seesaw': must be one of softmax, cosine, c2am"):
        make_classification("fasa", base="seesaw")


def three_clouds():
    rng = np.random.default_rng(3)
    centres = np.array([[0.0, 0], [10, 0], [0, 10]])
    points = np.repeat(centres, (5, 4, 3), 0) + 0.3 * rng.standard_normal((12, 2))
    return points, -((points[:, None] - points) ** 2).sum(-1)


def test_affinity_propagation_finds_clouds():
    _, similarity = three_clouds()
    exemplars = affinity_propagation(similarity)
    groups = [set(np.flatnonzero(exemplars == e)) for e in np.unique(exemplars)]
    assert sorted(map(sorted, groups)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
    assert all(exemplars[e] == e for e in np.unique(exemplars))


def test_affinity_propagation_agrees_with_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster", reason="pip install scikit-learn")
    for seed in range(5):
        points = np.random.default_rng(seed).standard_normal((60, 3))
        similarity = -((points[:, None] - points) ** 2).sum(-1)
        off_diagonal = similarity[~np.eye(60, dtype=bool)]
        fitted = cluster.AffinityPropagation(
            affinity="precomputed", preference=np.median(off_diagonal), random_state=0
        ).fit(similarity)
        found = affinity_propagation(similarity)
        assert len(np.unique(found)) == len(fitted.cluster_centers_indices_)
        np.testing.assert_array_equal(np.unique(found), np.sort(fitted.cluster_centers_indices_))
        np.testing.assert_array_equal(found, fitted.cluster_centers_indices_[fitted.labels_])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_points_that_are_all_alike_stay_alone(count):
    np.testing.assert_array_equal(affinity_propagation(np.zeros((count, count))), np.arange(count))


def test_chances_follow_the_summed_change_of_a_group():
    before = np.array([1.0, 1.0, 2.0, UNKNOWN, 1.0, 1.0])
    after = np.array([0.5, 1.2, 3.0, 5.0, UNKNOWN, 1.0])
    groups = np.array([0, 0, 2, 2, 4, 5])
    new = updated_chances(np.array([0.1, 0.95, 0.2, 0.3, 0.4, 0.5]), groups, before, after)
    np.testing.assert_allclose(new, [0.11, 1.0, 0.18, 0.27, 0.4, 0.5])


def test_after_an_epoch_classes_that_improve_are_drawn_more():
    method = make_classification("fasa", statistics=STATISTICS)
    means = np.array([[0, 0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 8.9]], np.float32)
    start = state(mean=means, seen=[True, True, True], chance=[0.2, 0.4, 0.6])
    one = method.after_epoch(start, {"batch_loss": np.array([2.0, 4, 0]), "batch_count": np.array([2.0, 2, 0])})
    np.testing.assert_allclose(one["held_out"], [1, 2, UNKNOWN])
    np.testing.assert_allclose(one["chance"], [0.2, 0.4, 0.6], rtol=1e-6)  # nothing to compare with
    two = method.after_epoch(one, {"batch_loss": np.array([6.0, 3, 0]), "batch_count": np.array([2.0, 2, 0])})
    np.testing.assert_allclose(two["chance"], [0.18, 0.44, 0.66], rtol=1e-6)  # 1 and 2 are one group
    assert int(two["epoch"]) == 2 and jax.tree.structure(two) == jax.tree.structure(start)
