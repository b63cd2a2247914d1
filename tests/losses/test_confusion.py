"""BACL and PCB, the methods of a confusion matrix: every rule against a direct statement in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vectors import PRECISIONS

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.methods.bacl import bacl_loss, hallucinated
from c2am_jax.losses.methods.pcb import pcb_loss, soft_labels, updated_confusion

CLASSES, WIDTH = 4, 6
LABELS = np.array([0, 3, 2, 4, 1, 4, 0, 2])  # 4 is background
DRAW = jax.jit(hallucinated, static_argnames=("classes", "features"))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def rows_of_shares(seed=5):
    """A confusion matrix with a row of zeros, of a class that was not seen, and shares below the floor."""
    matrix = np.random.default_rng(seed).dirichlet(np.full(CLASSES, 0.3), CLASSES)
    matrix[1] = 0
    return matrix


def bacl_by_hand(z, labels, matrix, alpha, threshold):
    losses = []
    for row, y in zip(z, labels, strict=True):
        background = sigmoid(row[CLASSES])
        scores = [sigmoid(row[j]) * (1 - background) for j in range(CLASSES)]
        total = 0.0
        for j in range(CLASSES + 1):
            margin, weight = 0.0, 1.0
            if y < CLASSES and j < CLASSES:
                margin = alpha * np.log(max(matrix[y, j], 1e-3) / max(matrix[j, y], 1e-3))
                weight = float(scores[j] >= scores[y] or scores[j] >= threshold)
            p = sigmoid(row[j] + margin)
            total += weight * -np.log(p if j == y else 1 - p)
        losses.append(total)
    return np.array(losses)


def pcb_by_hand(z, labels, matrix, alpha, softened=True):
    losses = []
    for row, y in zip(z, labels, strict=True):
        p = softmax(row)
        loss = -np.log(p[y])
        if softened and y < CLASSES:
            soft = matrix[:, y] / matrix[:, y].sum()
            divergence = sum(t * np.log(t / p[i]) for i, t in enumerate(soft) if t > 0)
            loss = (1 - alpha) * loss + alpha * divergence
        losses.append(loss)
    return np.array(losses)


def slopes(function, z):
    """Central differences of the mean of `function` of logits."""
    found = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        for sign in (1, -1):
            moved = z.copy()
            moved[place] += sign * 1e-6
            found[place] += sign * function(moved).mean() / 2e-6
    return found


@PRECISIONS
@pytest.mark.parametrize("threshold", [0.7, 0.0], ids=["chosen channels", "all channels"])
def test_bacl_vector(threshold, dtype, bound):
    z, matrix = 2 * np.random.default_rng(0).standard_normal((8, CLASSES + 1)), rows_of_shares()
    expected = bacl_by_hand(z, LABELS, matrix, 0.85, threshold)
    with jax.enable_x64(dtype == np.float64):
        given = jnp.asarray(LABELS), jnp.asarray(matrix, dtype)

        def mean(logits):
            losses = bacl_loss(logits, *given, threshold=threshold)
            return losses.mean(), losses

        (_, losses), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(jnp.asarray(z, dtype))
    np.testing.assert_allclose(losses, expected, rtol=bound, atol=bound)
    by_differences = slopes(lambda moved: bacl_by_hand(moved, LABELS, matrix, 0.85, threshold), z)
    np.testing.assert_allclose(gradient, by_differences, atol=bound)


@PRECISIONS
@pytest.mark.parametrize("softened", [True, False])
def test_pcb_vector(softened, dtype, bound):
    rng = np.random.default_rng(1)
    z, matrix = 2 * rng.standard_normal((8, CLASSES + 1)), rng.dirichlet(np.full(CLASSES, 0.5), CLASSES)
    matrix[2, 0] = 0  # nothing of class 2 is taken for class 0
    with jax.enable_x64(dtype == np.float64):
        given = jnp.asarray(LABELS), jnp.asarray(matrix, dtype)

        def mean(logits):
            losses = pcb_loss(logits, *given, softened)
            return losses.mean(), losses

        (_, losses), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(jnp.asarray(z, dtype))
    np.testing.assert_allclose(losses, pcb_by_hand(z, LABELS, matrix, 0.4, softened), rtol=bound, atol=bound)
    by_differences = slopes(lambda moved: pcb_by_hand(moved, LABELS, matrix, 0.4, softened), z)
    np.testing.assert_allclose(gradient, by_differences, atol=bound)


def batches(steps):
    """Features, labels and weights of steps: some padding, class 3 from the second step on only."""
    rng = np.random.default_rng(2)
    for step in range(steps):
        labels = rng.integers(0, CLASSES + 1, 12)
        labels[labels == 3] = 3 if step else 0
        labels[:3] = [0, 1, 2]
        weights = np.append(np.ones(9), np.zeros(3))
        yield rng.standard_normal((12, WIDTH)), labels, weights


def head():
    rng = np.random.default_rng(3)
    return rng.standard_normal((WIDTH, CLASSES + 1)), rng.standard_normal(CLASSES + 1)


def run(method, steps):
    """Losses of the rows that are no padding, and states, in float64."""
    with jax.enable_x64(True):
        kernel, bias = map(jnp.asarray, head())
        state, history, step = method.init_state(CLASSES, WIDTH), [], jax.jit(method.loss)
        for batch in batches(steps):
            losses, state = step(Samples(*map(jnp.asarray, batch)), Head(kernel, bias), state)
            history.append((np.asarray(losses)[:9], jax.tree.map(np.asarray, state)))
    return history


def test_bacl_adds_the_confusion_of_the_run_up_and_uses_that_of_the_steps_before():
    sums, counts = np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES)
    kernel, bias = head()
    history = run(make_classification("bacl", drawn_classes=0), 3)
    for (losses, state), (x, labels, _) in zip(history, batches(3), strict=True):
        matrix = sums / np.maximum(counts, 1)[:, None]
        z, labels = (x @ kernel + bias)[:9], labels[:9]
        np.testing.assert_allclose(losses, bacl_by_hand(z, labels, matrix, 0.85, 0.7), rtol=1e-5)
        for row, y in zip(z, labels, strict=True):
            if y < CLASSES:
                sums[y] += softmax(row[:CLASSES])
                counts[y] += 1
        np.testing.assert_allclose(state["confusion"], sums, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(state["counts"], counts)


def test_bacl_without_its_parts_is_binary_cross_entropy():
    kernel, bias = head()
    for (losses, _), (x, labels, _) in zip(
        run(make_classification("bacl", drawn_classes=0, alpha=0.0, threshold=0.0), 2), batches(2), strict=True
    ):
        p, target = sigmoid(x @ kernel + bias)[:9], np.eye(CLASSES + 1)[labels[:9]]
        expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(1)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_classes_that_are_recognised_badly_are_hallucinated_more_often():
    state = {
        "confusion": jnp.asarray(np.diag([9.0, 5.0, 0.0, 0.0])),
        "counts": jnp.asarray([10.0, 10.0, 10.0, 0.0]),  # recognised: 0.9, 0.5, 0; the last was not seen
        "mean": jnp.asarray(np.arange(CLASSES * WIDTH, dtype=np.float32).reshape(CLASSES, WIDTH)),
        "variance": jnp.full((CLASSES, WIDTH), 4.0),
        "seen": jnp.asarray([True, True, True, False]),
    }
    drawn, labels, counted = DRAW(state, jax.random.key(0), classes=2000, features=2)
    assert drawn.shape == (4000, WIDTH) and (np.asarray(labels[::2]) == np.asarray(labels[1::2])).all()
    np.testing.assert_allclose(np.bincount(labels, minlength=CLASSES) / 4000, np.array([1, 5, 10, 10]) / 26, atol=0.03)
    np.testing.assert_array_equal(counted, np.asarray(labels) < 3)
    noise = (drawn - state["mean"][labels])[np.asarray(labels) == 2]
    np.testing.assert_allclose(noise.std(), 2.0, atol=0.05)


def test_hallucinated_features_train_like_sampled_ones_and_count_in_the_confusion():
    method = make_classification("bacl")
    kernel, bias = (jnp.asarray(a, jnp.float32) for a in head())
    rng = np.random.default_rng(4)
    x, labels = np.repeat(rng.standard_normal((CLASSES + 1, WIDTH)), 2, 0), np.repeat(np.arange(CLASSES + 1), 2)
    samples = Samples(jnp.asarray(x, jnp.float32), jnp.asarray(labels), jnp.ones(10))  # equal features: variance 0
    losses, state = jax.jit(method.loss)(samples, Head(kernel, bias), method.init_state(CLASSES, WIDTH))
    key = jax.random.fold_in(jax.random.key(0), 0)
    nothing = method.init_state(CLASSES, WIDTH) | {name: state[name] for name in ("mean", "variance", "seen")}
    drawn, chosen, counted = DRAW(nothing, key, classes=8, features=12)
    assert counted.all() and len(chosen) == 96
    np.testing.assert_allclose(drawn, x[::2][np.asarray(chosen)], atol=1e-5)
    everyone, y = np.concatenate([x, np.asarray(drawn)]), np.concatenate([labels, np.asarray(chosen)])
    z = everyone @ head()[0] + head()[1]
    expected = bacl_by_hand(z, y, np.zeros((CLASSES, CLASSES)), 0.85, 0.7).mean()
    assert float(losses.mean()) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(state["counts"], np.bincount(y, minlength=CLASSES + 1)[:CLASSES])
    sums = np.zeros((CLASSES + 1, CLASSES))
    for row, label in zip(z, y, strict=True):
        sums[label] += softmax(row[:CLASSES])
    np.testing.assert_allclose(state["confusion"], sums[:CLASSES], rtol=1e-4)


def test_pcb_softens_late_once_every_class_was_seen():
    method = make_classification("pcb", start_epoch=0, start_step=2)
    matrix, counts = np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES)
    kernel, bias = head()
    softened = []
    for step, ((losses, state), (x, labels, _)) in enumerate(zip(run(method, 4), batches(4), strict=True)):
        z, labels = (x @ kernel + bias)[:9], labels[:9]
        for c in set(labels) - {CLASSES}:
            mean = np.mean([softmax(row[:CLASSES]) for row, y in zip(z, labels, strict=True) if y == c], 0)
            row = 0.99 * matrix[c] + 0.01 * mean
            matrix[c], counts[c] = row / row.sum(), counts[c] + (labels == c).sum()
        np.testing.assert_allclose(state["confusion"], matrix, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(state["counts"], counts)
        softened.append(step >= 2 and bool((counts > 0).all()))
        np.testing.assert_allclose(losses, pcb_by_hand(z, labels, matrix, 0.4, softened[-1]), rtol=1e-5)
    assert softened == [False, False, True, True]
    early = run(make_classification("pcb", start_epoch=0), 2)  # class 3 is not seen in the first step
    np.testing.assert_array_equal(early[0][0], run(method, 1)[0][0])
    assert not (early[1][0] == run(method, 2)[1][0]).all()


def test_pcb_counts_epochs():
    method = make_classification("pcb", start_epoch=2)
    state = method.init_state(CLASSES, WIDTH)
    assert method.measured == () and int(method.after_epoch(method.after_epoch(state, {}), {})["epoch"]) == 2


def test_soft_labels_are_what_is_taken_for_the_class():
    matrix = jnp.asarray([[0.6, 0.4], [0.2, 0.8]])
    found = soft_labels(matrix, jnp.asarray([0, 1, 2]))
    np.testing.assert_allclose(found[:2], [[0.75, 0.25, 0], [1 / 3, 2 / 3, 0]], rtol=1e-6)
    kept = updated_confusion(matrix, jnp.asarray([[0.0, 0.0], [2.0, 2.0]]), jnp.asarray([0.0, 4.0]))
    np.testing.assert_allclose(kept, [[0.6, 0.4], [0.2 * 0.99 + 0.005, 0.8 * 0.99 + 0.005]], rtol=1e-6)
