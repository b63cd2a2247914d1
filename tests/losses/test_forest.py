"""Forest R-CNN: what its losses are and where their gradients end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.methods.forest import forest_logits, parent_count
from c2am_jax.losses.statistics import ClassStatistics

CLASSES, WIDTH = 12, 6
TREES = {
    "lexical": np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
    "geometric": np.array([0, 1, 2] * 4),
    "visual": np.array([2, 2, 1, 1, 0, 0, 2, 2, 1, 1, 0, 0]),
}


def trees(visual):
    return {tree: parents for tree, parents in TREES.items() if visual or tree != "visual"}


STATISTICS = ClassStatistics(np.full(CLASSES, 9.0), np.full(CLASSES, 5.0), 60, trees)


@pytest.fixture(params=["", "runs/baseline"])
def head(request):
    method = make_classification("forest", statistics=STATISTICS, visual=request.param)
    keys = iter(jax.random.split(jax.random.key(0), 20))
    extra = method.extra_parameters(CLASSES, WIDTH, lambda: next(keys))
    kernel = jax.random.normal(jax.random.key(1), (WIDTH, CLASSES + 1))
    x, labels = jax.random.normal(jax.random.key(2), (5, WIDTH)), jnp.array([0, 7, CLASSES, 3, CLASSES])
    return method, x, kernel, jnp.zeros(CLASSES + 1), labels, extra


def branches(x, extra):
    """Parents' logits of each tree, and the parent of each class, as numpy would have them."""
    found = []
    for tree in [name.removesuffix("_parent") for name in extra if name.endswith("_parent")]:
        hidden = np.maximum(x @ extra[f"{tree}_hidden"] + extra[f"{tree}_hidden_bias"], 0)
        found.append((hidden @ extra[f"{tree}_kernel"] + extra[f"{tree}_bias"], extra[f"{tree}_parent"]))
    return found


def loss_of(head, **changes):
    method, x, kernel, bias, labels, extra = head
    given = {"x": x, "kernel": kernel, "extra": extra} | changes
    samples, own = Samples(given["x"], labels, jnp.ones(5)), Head(given["kernel"], bias, given["extra"])
    value, state = method.loss(samples, own, {})
    assert state == {}
    return value


def test_the_losses_of_classes_and_of_all_trees_are_added(head):
    _, x, kernel, bias, labels, extra = head
    expected = softmax_cross_entropy(x @ kernel + bias, labels)
    for logits, parent in branches(x, extra):
        assert logits.shape[1] == parent_count("visual", CLASSES) + 1 and parent[CLASSES] == logits.shape[1] - 1
        expected += softmax_cross_entropy(jnp.asarray(logits), parent[labels])
    np.testing.assert_allclose(loss_of(head), expected, rtol=1e-5)


def test_parents_do_not_move_the_features_and_train_themselves(head):
    _, x, kernel, bias, labels, extra = head
    fine = jax.grad(lambda x: softmax_cross_entropy(x @ kernel + bias, labels).sum())(x)
    np.testing.assert_allclose(jax.grad(lambda x: loss_of(head, x=x).sum())(x), fine, rtol=1e-5, atol=1e-7)
    trains = {name: value for name, value in extra.items() if not name.endswith("_parent")}
    gradient = jax.grad(lambda t: loss_of(head, extra=extra | t).sum())(trains)
    assert all(float(jnp.abs(g).max()) > 0 for g in gradient.values())


def test_scores_are_calibrated_by_the_parents(head):
    method, x, kernel, bias, _, extra = head
    trees = branches(x, extra)
    logits = forest_logits(x @ kernel + bias, [jnp.asarray(z) for z, _ in trees], [p for _, p in trees])
    np.testing.assert_allclose(method.scores(x, Head(kernel, bias, extra)), jax.nn.softmax(logits), rtol=1e-5)


def test_parents_come_from_the_statistics(head):
    extra = head[-1]
    for tree, parents in TREES.items():
        if f"{tree}_parent" in extra:
            np.testing.assert_array_equal(extra[f"{tree}_parent"][:-1], parents)


def test_lvis_has_the_authors_numbers_of_parents():
    assert [parent_count(tree, 1230) for tree in ("visual", "geometric", "lexical")] == [25, 50, 108]
    assert parent_count("lexical", 100) == 25 and parent_count("visual", 2) == 1
