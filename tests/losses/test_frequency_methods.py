"""Losses made of class counts and sigmoids: reference vectors, state, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import PRECISIONS, longtail_vector

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.methods import METHODS, method_parameters
from c2am_jax.losses.methods.ecm import ecm_terms
from c2am_jax.losses.methods.eql import eql_loss
from c2am_jax.losses.methods.eql_v2 import eql_v2_weights
from c2am_jax.losses.methods.ldam import ldam_margins, ldam_of_cosines
from c2am_jax.losses.statistics import ClassStatistics, effective_number_weights

COUNTS = np.array([50000.0, 900.0, 150.0, 12.0, 2.0])


def statistics(instances=None, images=None, total=100):
    """Counts of classes; what a method does not read may be anything."""
    known = np.asarray(instances if instances is not None else images, np.float64)
    return ClassStatistics(known, np.asarray(images if images is not None else instances, np.float64), total)


def value_and_gradient(method, recorded, dtype, state=None):
    """Mean loss of the recorded logits and its gradient, jitted; an identity kernel makes features logits."""
    logits, labels = np.asarray(recorded["inputs"]["logits"], dtype), jnp.asarray(recorded["inputs"]["labels"])
    columns = logits.shape[1]
    state = method.init_state(columns - 1 - method.extra_outputs, columns) if state is None else state

    def mean(features):
        head = Head(jnp.eye(columns, dtype=dtype), jnp.zeros(columns, dtype))
        loss, new = method.loss(Samples(features, labels, jnp.ones(len(labels))), head, state)
        return loss.mean(), new

    (value, new), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(jnp.asarray(logits))
    return float(value), np.asarray(gradient), new


@PRECISIONS
@pytest.mark.parametrize(
    ("name", "method", "of"),
    [
        ("softmax_ce", "softmax", None),
        ("cbl_softmax", "cbl", "instance_counts"),
        ("eql", "eql", "image_frequency"),
        ("balanced_sigmoid", "balanced_sigmoid", "image_frequency"),
        ("ecm", "ecm", "image_counts"),
    ],
)
def test_reference_vector(name, method, of, dtype, bound):
    recorded = longtail_vector(name)
    given, parameters = recorded["inputs"].get(of), {"eql": {"tail_frequency": 1.77e-3}}.get(name, {})
    if of == "image_frequency":
        counts = statistics(images=np.asarray(given) * 1e9, total=10**9)
    else:
        counts = statistics(given) if given is not None else None
    with jax.enable_x64(dtype == np.float64):
        made = make_classification(method, statistics=counts, **parameters)
        value, gradient, _ = value_and_gradient(made, recorded, dtype)
    assert value == pytest.approx(recorded["expected"]["loss"], rel=bound)
    np.testing.assert_allclose(gradient, recorded["expected"]["dlogits"], atol=bound)


@PRECISIONS
def test_eql_v2_follows_two_recorded_steps(dtype, bound):
    recorded = longtail_vector("eqlv2_two_steps")
    expected = recorded["expected"]
    with jax.enable_x64(dtype == np.float64):
        method, state = make_classification("eql_v2"), None
        for step in (0, 1):
            value, _, state = value_and_gradient(method, recorded, dtype, state)
            assert value == pytest.approx(expected[f"loss_step{step + 1}"], rel=bound)
            np.testing.assert_allclose(state["positive"], expected["pos_grad"][step], rtol=bound, atol=bound)
            np.testing.assert_allclose(state["negative"], expected["neg_grad"][step], rtol=bound)


@PRECISIONS
def test_ldam_reference_vector(dtype, bound):
    recorded = longtail_vector("ldam")
    margins = ldam_margins(np.asarray(recorded["inputs"]["instance_counts"]))
    np.testing.assert_allclose(margins, recorded["expected"]["margins"][:-1], rtol=1e-12)
    with jax.enable_x64(dtype == np.float64):
        cosines, labels = jnp.asarray(recorded["inputs"]["cosines"], dtype), jnp.asarray(recorded["inputs"]["labels"])
        own = jnp.asarray(np.append(margins, 0), dtype)

        def mean(c):
            return ldam_of_cosines(c, labels, own, scale=30.0).mean()

        value, gradient = jax.jit(jax.value_and_grad(mean))(cosines)
    assert float(value) == pytest.approx(recorded["expected"]["loss"], rel=bound)
    # The recorded central differences are those of cosines, 30 times as steep as logits.
    np.testing.assert_allclose(gradient, recorded["expected"]["dlogits"], atol=30 * bound)


@PRECISIONS
def test_balanced_softmax_reference_vector(dtype, bound):
    recorded = longtail_vector("balanced_softmax")
    logits = np.asarray(recorded["inputs"]["logits"], dtype)
    labels = jnp.asarray(recorded["inputs"]["labels"])
    method = make_classification("balanced_softmax", statistics=statistics(recorded["inputs"]["counts"]))
    with jax.enable_x64(dtype == np.float64):

        def mean(logits):
            features = jnp.concatenate([logits, jnp.full((4, 1), -1e9, dtype)], 1)  # the recorded form: no background
            head = Head(jnp.eye(6, dtype=dtype), jnp.zeros(6, dtype))
            return method.loss(Samples(features, labels, jnp.ones(4)), head, {})[0].mean()

        value, gradient = jax.jit(jax.value_and_grad(mean))(jnp.asarray(logits))
    assert float(value) == pytest.approx(recorded["expected"]["loss"], rel=bound)
    shifted = np.exp(logits.astype(np.float64)) * np.asarray(recorded["inputs"]["counts"])
    expected = (shifted / shifted.sum(1, keepdims=True) - np.eye(5)[np.asarray(labels)]) / 4
    np.testing.assert_allclose(gradient, expected, atol=bound)


def test_ldam_separates_by_angle_and_rare_classes_by_more():
    features = jnp.asarray(np.eye(4)[[0, 3]], jnp.float32)
    method = make_classification("ldam", statistics=statistics(COUNTS[:3]))
    samples = Samples(features, jnp.array([0, 3]), jnp.ones(2))
    loss, state = method.loss(samples, Head(jnp.eye(4)), method.init_state(3, 4))
    plain = softmax_cross_entropy(30 * features, jnp.array([0, 3]))
    assert float(loss[0]) > float(plain[0]) and float(loss[1]) == pytest.approx(float(plain[1]))
    assert state["step"] == 1


def test_deferred_reweighting_starts_at_its_step():
    method = make_classification("ldam", statistics=statistics(COUNTS), reweight_from=1)
    features, labels = jax.random.normal(jax.random.key(0), (3, 6)), jnp.array([0, 4, 5])
    samples, head = Samples(features, labels, jnp.ones(3)), Head(jnp.eye(6))
    first, state = method.loss(samples, head, method.init_state(5, 6))
    second, _ = method.loss(samples, head, state)
    weights = np.append(effective_number_weights(COUNTS, 0.9999), 1.0)[np.asarray(labels)]
    np.testing.assert_allclose(second, first * weights, rtol=1e-5)


def test_tail_classes_are_left_alone_by_foreground_samples_only():
    logits, labels = jnp.zeros((2, 3)), jnp.array([0, 3])  # the second is background
    gradient = jax.grad(lambda z: eql_loss(z, labels, jnp.array([0.0, 0.0, 1.0])).sum())(logits)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5, 0.0], [0.5, 0.5, 0.5]])


def test_eql_v2_starts_unweighted_and_helps_classes_with_few_positive_gradients():
    positive, negative = eql_v2_weights(jnp.array([100.0, 0.8, 0.0]), gamma=12.0, mu=0.8, alpha=4.0)
    np.testing.assert_allclose(positive, [1, 3, 5], atol=1e-3)
    np.testing.assert_allclose(negative, [1, 0.5, 0], atol=1e-3)


def test_effective_numbers_of_the_reference():
    weights = longtail_vector("cbl_softmax")["expected"]["weights"]
    np.testing.assert_allclose(effective_number_weights(COUNTS, 0.999), weights[:-1], rtol=1e-10)


def test_ecm_terms_of_the_reference():
    recorded = longtail_vector("ecm")
    counts = np.asarray(recorded["inputs"]["image_counts"])
    shift, weight = ecm_terms(jnp.asarray(np.append(counts, 6.3313 * counts.sum()), jnp.float32))
    np.testing.assert_allclose(shift, recorded["expected"]["shift"], rtol=1e-4)
    np.testing.assert_allclose(weight, recorded["expected"]["class_weight"], rtol=1e-4)


def made(name):
    """A method of five classes and a head of eight features."""
    method = make_classification(name, statistics=statistics(COUNTS))
    kernel = jax.random.normal(jax.random.key(1), (8, 6 + method.extra_outputs))
    bias = jnp.zeros(kernel.shape[1]) if method.classifier == "linear" else None
    return method, Head(kernel, bias, method.extra_parameters(5, 8, lambda: jax.random.key(3)))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_scores_for_each_class_and_background(name):
    method, head = made(name)
    scores = method.scores(jax.random.normal(jax.random.key(2), (7, 8)), head)
    assert scores.shape == (7, 6) and float(scores.min()) >= 0 and float(scores.max()) <= 1
    assert "statistics" not in method_parameters(name)


@pytest.mark.parametrize("name", METHODS)
def test_no_array_of_a_state_is_there_twice(name):
    leaves = jax.tree.leaves(make_classification(name, statistics=statistics(COUNTS)).init_state(5, 8))
    assert len({id(leaf) for leaf in leaves}) == len(leaves)  # a step donates each of them, which works once


@pytest.mark.parametrize("name", METHODS)
def test_padding_leaves_every_state_alone(name):
    with jax.enable_x64(True):  # in float32, products of two and of four rows round differently on some processors
        _compare_with_padding(name)


def _compare_with_padding(name):
    method, head = made(name)
    features, labels = jax.random.normal(jax.random.key(3), (4, 8)), jnp.array([0, 2, 4, 5], jnp.int32)
    weights = jnp.array([1.0, 1.0, 0.0, 0.0])

    def run(n):
        return method.loss(Samples(features[:n], labels[:n], weights[:n]), head, method.init_state(5, 8))

    (all_losses, padded), (own_losses, expected) = run(4), run(2)
    np.testing.assert_allclose(all_losses[:2], own_losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
