"""Properties of the cosine family that hold for any numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses import (
    Head,
    Samples,
    arcface_loss,
    c2am_loss,
    c2am_margins,
    cosine_logits,
    cosine_softmax_loss,
    make_classification,
    sphereface_lambda,
    sphereface_loss,
)
from c2am_jax.losses.statistics import ClassStatistics

N, D, C = 8, 6, 7
EPS = 1e-5


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    features = np.abs(rng.standard_normal((N, D))).astype(np.float32)
    kernel = (rng.standard_normal((D, C)) * np.geomspace(4, 0.1, C)).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(kernel), jnp.asarray(rng.integers(0, C, N))


def gradients(loss, features, kernel, labels, **options):
    def total(x, w):
        return loss(x, w, labels, **options).sum()

    return jax.jit(jax.grad(total, argnums=(0, 1)))(features, kernel)


def test_alpha_zero_is_the_cosine_softmax(problem):
    np.testing.assert_allclose(c2am_loss(*problem, alpha=0.0), cosine_softmax_loss(*problem), atol=EPS)
    for ours, plain in zip(
        gradients(c2am_loss, *problem, alpha=0.0), gradients(cosine_softmax_loss, *problem), strict=True
    ):
        np.testing.assert_allclose(ours, plain, atol=1e-3)


def test_smallest_norm_label_and_equal_norms_have_no_margin(problem):
    features, kernel, _ = problem
    smallest = jnp.full(N, int(jnp.linalg.norm(kernel, axis=0).argmin()))
    np.testing.assert_allclose(
        c2am_loss(features, kernel, smallest), cosine_softmax_loss(features, kernel, smallest), atol=EPS
    )
    equal = kernel / jnp.linalg.norm(kernel, axis=0)
    assert float(c2am_margins(equal, problem[2]).max()) < 1e-6


def test_loss_lies_between_zero_and_the_cosine_softmax(problem):
    loss, plain = c2am_loss(*problem), cosine_softmax_loss(*problem)
    assert (loss >= 0).all() and (loss <= plain + EPS).all() and (loss < plain - 1e-3).any()


@pytest.mark.parametrize("wrap", ["clip", "monotone"])
def test_loss_falls_with_the_labels_norm_and_rises_with_a_competitors(problem, wrap):
    features, kernel, labels = problem
    factors = jnp.geomspace(0.1, 10, 7)

    def losses(column):
        def scaled(f):
            return kernel.at[:, column].multiply(f)

        return jnp.stack([c2am_loss(features, scaled(f), labels, wrap=wrap) for f in factors])

    own = np.diff(losses(int(labels[0]))[:, 0])
    other = np.diff(losses(int((labels[0] + 1) % C))[:, 0])
    assert (own <= EPS).all() and (other >= -EPS).all() and own.min() < -1e-3


def test_margins_are_one_sided_and_add_up():
    norms = np.array([8.0, 4.0, 2.0, 0.5], np.float32)
    margins = np.asarray(c2am_margins(jnp.diag(jnp.asarray(norms)), jnp.arange(4)))
    assert (np.diag(margins) == 0).all() and (margins * margins.T == 0).all()
    assert margins[0, 2] == pytest.approx(margins[0, 1] + margins[1, 2], abs=1e-6)
    doubled = np.asarray(c2am_margins(jnp.diag(jnp.asarray(norms * [2, 1, 1, 1])), jnp.arange(4)))
    np.testing.assert_allclose(doubled[0, 1:] - margins[0, 1:], 0.5 * math.log(2) / math.pi, atol=1e-6)


def test_scaling_features_or_all_weights_changes_nothing_but_their_gradients(problem):
    features, kernel, labels = problem
    dx, dw = gradients(c2am_loss, features, kernel, labels)
    larger_x, same_w = gradients(c2am_loss, 4 * features, kernel, labels)
    same_x, larger_w = gradients(c2am_loss, features, 4 * kernel, labels)
    np.testing.assert_allclose(c2am_loss(4 * features, kernel, labels), c2am_loss(*problem), atol=1e-4)
    np.testing.assert_allclose(c2am_loss(features, 4 * kernel, labels), c2am_loss(*problem), atol=1e-4)
    np.testing.assert_allclose(larger_x * 4, dx, atol=1e-3)
    np.testing.assert_allclose(larger_w * 4, dw, atol=1e-3)
    np.testing.assert_allclose(same_w, dw, atol=1e-3)
    np.testing.assert_allclose(same_x, dx, atol=1e-3)


def test_rotation_and_permutation_of_classes(problem):
    features, kernel, labels = problem
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0], jnp.float32)
    expected = c2am_loss(*problem)
    np.testing.assert_allclose(c2am_loss(features @ rotation, rotation.T @ kernel, labels), expected, atol=1e-4)
    order = np.random.default_rng(2).permutation(C)
    np.testing.assert_allclose(
        c2am_loss(features, kernel[:, order], jnp.asarray(np.argsort(order))[labels]), expected, atol=1e-4
    )


def test_gradients_are_orthogonal_so_the_margin_is_detached(problem):
    features, kernel, labels = problem
    dx, dw = gradients(c2am_loss, features, kernel, labels)
    assert float(jnp.abs((features * dx).sum(1)).max()) < 1e-3
    # A margin with gradient would give W_j . dL/dW_j = s p_j sin(theta_j + m_j) alpha / pi instead of zero.
    assert float(jnp.abs((kernel * dw).sum(0)).max()) < 1e-3


def test_binary_boundary_is_half_the_angle_plus_half_the_margin():
    angle, ratio = 1.2, math.e**2
    kernel = jnp.array([[ratio, 0.0], [math.cos(angle), math.sin(angle)]], jnp.float32).T
    margin = 0.5 / math.pi * 2

    def loss(theta, label):
        features = jnp.array([[math.cos(theta), math.sin(theta)]], jnp.float32)
        return float(c2am_loss(features, kernel, jnp.array([label]))[0])

    assert loss((angle + margin) / 2, 0) == pytest.approx(math.log(2), abs=1e-4)
    assert loss(angle / 2, 1) == pytest.approx(math.log(2), abs=1e-4)


def test_duplicate_classes_get_equal_gradients(problem):
    features, kernel, _ = problem
    kernel = kernel.at[:, 3].set(kernel[:, 2])
    _, dw = gradients(c2am_loss, features, kernel, jnp.zeros(N, jnp.int32))
    np.testing.assert_allclose(dw[:, 2], dw[:, 3], atol=1e-5)


def test_limits_of_the_scale(problem):
    features, kernel, labels = problem
    np.testing.assert_allclose(c2am_loss(*problem, scale=1e-4), math.log(C), atol=1e-3)
    margins = c2am_margins(kernel, labels)
    angles = jnp.arccos(cosine_logits(features, kernel, scale=1.0))
    moved = jnp.cos(angles + margins)
    gap = jnp.maximum(0, (moved - jnp.take_along_axis(moved, labels[:, None], 1)).max(1))
    np.testing.assert_allclose(c2am_loss(*problem, scale=1e4) / 1e4, gap, atol=1e-3)


@pytest.mark.parametrize("features", [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], ids=["zero", "theta 0", "theta pi"])
def test_gradients_are_finite_at_the_singular_points(features):
    kernel = jnp.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    for label in range(3):
        dx, dw = gradients(c2am_loss, jnp.array([features]), kernel, jnp.array([label]))
        assert jnp.isfinite(dx).all() and jnp.isfinite(dw).all()


def test_the_method_gives_background_no_margins_unless_it_is_told_to(problem):
    features, kernel, labels = problem
    kernel, labels = kernel[:, ::-1], labels.at[:3].set(kernel.shape[1] - 1)  # background, with the longest weights
    samples, losses = Samples(features, labels, jnp.ones(len(labels))), {}
    for rule in ("foreground_only", "all"):
        losses[rule] = np.asarray(c2am_loss(features, kernel, labels, background=rule))
        method = make_classification("c2am", background=rule)
        np.testing.assert_array_equal(method.loss(samples, Head(kernel), {})[0], losses[rule])
    assert (losses["all"][:3] != losses["foreground_only"][:3]).all()
    default, letter = make_classification("c2am"), c2am_loss(features, kernel, labels)
    np.testing.assert_array_equal(default.loss(samples, Head(kernel), {})[0], losses["foreground_only"])
    np.testing.assert_array_equal(letter, losses["all"])  # the function is Eq. 7 to the letter


def test_foreground_only_leaves_background_rows_without_margin(problem):
    features, kernel, _ = problem
    background = jnp.full(N, C - 1)
    assert float(c2am_margins(kernel[:, ::-1], background).max()) > 0.1
    assert float(c2am_margins(kernel[:, ::-1], background, background="foreground_only").max()) == 0
    foreground = jnp.zeros(N, jnp.int32)
    np.testing.assert_array_equal(
        c2am_margins(kernel, foreground), c2am_margins(kernel, foreground, background="foreground_only")
    )


def test_margin_is_capped():
    kernel = jnp.array([[1e6, 0.0], [0.0, 1e-6]])
    assert float(c2am_margins(kernel, jnp.array([0])).max()) == pytest.approx(math.pi / 2)
    uncapped = c2am_margins(kernel, jnp.array([0]), max_margin=math.inf)
    assert float(uncapped.max()) == pytest.approx(0.5 / math.pi * math.log(1e12), rel=1e-5)


def test_bfloat16_inputs_are_computed_in_float32(problem):
    features, kernel, labels = problem
    loss = c2am_loss(features.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), labels)
    exact = c2am_loss(
        features.astype(jnp.bfloat16).astype(jnp.float32), kernel.astype(jnp.bfloat16).astype(jnp.float32), labels
    )
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact, atol=EPS)


def test_sphereface_with_margin_one_is_the_weight_normalised_softmax(problem):
    features, kernel, labels = problem
    logits = features @ (kernel / jnp.linalg.norm(kernel, axis=0))
    expected = -jax.nn.log_softmax(logits)[jnp.arange(N), labels]
    np.testing.assert_allclose(sphereface_loss(*problem, margin=1), expected, atol=1e-4)


def test_sphereface_lambda_anneals_to_its_minimum():
    assert float(sphereface_lambda(0)) == 1000
    assert float(sphereface_lambda(100)) == pytest.approx(1000 / 13)
    assert float(sphereface_lambda(10**6)) == 5


@pytest.mark.parametrize("labels", [jnp.ones((N, C)), jnp.ones(N)], ids=["soft", "float"])
def test_soft_labels_are_refused(problem, labels):
    function = getattr(c2am_loss, "__wrapped__", c2am_loss)
    with pytest.raises(Exception, match="labels|Type"):
        function(problem[0], problem[1], labels)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p: c2am_loss(*p, wrap="mirror"), "literal, clip, monotone"),
        (lambda p: c2am_loss(*p, background="none"), "all, foreground_only"),
        (lambda p: arcface_loss(*p, wrap="clip"), "fallback, easy, literal"),
        (lambda p: make_classification("c2an"), "softmax, cosine, c2am"),
        (lambda p: make_classification("c2am", beta=1.0), "scale, alpha"),
        (lambda p: make_classification("c2am", wrap="easy"), "literal, clip, monotone"),
    ],
)
def test_unknown_choices_list_the_known_ones(problem, call, named):
    with pytest.raises(ValueError, match=named):
        call(problem)


def test_scores_do_not_depend_on_alpha_and_sum_to_one(problem):
    features, kernel, _ = problem
    scores = [make_classification("c2am", alpha=a).scores(features, Head(kernel)) for a in (0.0, 0.5)]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_allclose(scores[0].sum(1), 1, atol=EPS)
    np.testing.assert_allclose(scores[0], jax.nn.softmax(cosine_logits(features, kernel)), atol=EPS)


def test_margin_statistics_ignore_padding(problem):
    features, kernel, labels = problem
    method = make_classification("c2am", background="all")
    half = jnp.asarray([1.0] * 4 + [0.0] * 4)
    found = method.metrics(Samples(features, labels, half), Head(kernel))
    alone = method.metrics(Samples(features[:4], labels[:4], jnp.ones(4)), Head(kernel))
    for name, value in alone.items():
        assert float(found[name]) == pytest.approx(float(value), abs=1e-6), name
    margins = np.asarray(c2am_margins(kernel, labels[:4]))
    assert float(found["margin/max"]) == pytest.approx(margins.max(), abs=1e-6)
    assert float(found["margin/mean"]) == pytest.approx(margins[margins > 0].mean(), abs=1e-6)


@pytest.mark.parametrize(
    "name", ["softmax", "cosine", "c2am", "fixed_margin", "cosface", "arcface", "sphereface", "seesaw"]
)
def test_every_method_learns_a_separable_problem(name):
    rng = np.random.default_rng(3)
    labels = jnp.asarray(rng.integers(0, 4, 64))
    features = jnp.asarray(np.eye(4)[labels] * 3 + 0.3 * np.abs(rng.standard_normal((64, 4))), jnp.float32)
    method = make_classification(name, statistics=ClassStatistics.uniform(4))
    outputs = 5 + method.extra_outputs
    samples, state = Samples(features, labels, jnp.ones(64)), method.init_state(4, 4)
    kernel = jnp.asarray(0.1 * rng.standard_normal((4, outputs)), jnp.float32)
    bias = jnp.full(outputs, method.bias_init) if method.classifier == "linear" else None

    @jax.jit
    def step(kernel, state):
        def mean(kernel):
            loss, new = method.loss(samples, Head(kernel, bias), state)
            return loss.mean(), new

        (value, state_), gradient = jax.value_and_grad(mean, has_aux=True)(kernel)
        return kernel - 0.02 * gradient, state_, value

    values = []
    for _ in range(60):
        kernel, state, value = step(kernel, state)
        values.append(float(value))
    assert np.isfinite(values).all() and values[-1] < 0.5 * values[0]
    assert (method.scores(features, Head(kernel, bias)).argmax(1) == labels).mean() > 0.95
