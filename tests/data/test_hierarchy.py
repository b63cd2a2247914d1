"""Trees put like classes under one parent."""

import numpy as np
import pytest

from c2am_jax.data.hierarchy import geometric_tree, lexical_tree, visual_tree
from c2am_jax.data.objects import Objects

TEXTS = (
    "apple sweet round fruit of a tree",
    "pear sweet fruit of a tree",
    "plum small sweet fruit of a tree",
    "truck heavy motor vehicle for goods",
    "car motor vehicle with four wheels",
    "bus motor vehicle for passengers",
    "boot leather footwear of the lower leg",
    "sandal open leather footwear",
)


def same(parents, *groups):
    """Whether parents split the classes into exactly these groups."""
    return sorted(sorted(np.flatnonzero(parents == p)) for p in np.unique(parents)) == sorted(map(sorted, groups))


def test_classes_described_alike_share_a_parent():
    parents = lexical_tree(TEXTS, 3)
    assert same(parents, [0, 1, 2], [3, 4, 5], [6, 7])
    np.testing.assert_array_equal(parents, lexical_tree(TEXTS, 3))
    assert lexical_tree(("", "", "x", "x"), 2).shape == (4,)  # classes without a text


def objects(classes, per_class, shape_of):
    """Objects of `per_class` instances each; `shape_of(class) -> width, height, fill`."""
    rng, rows = np.random.default_rng(0), []
    for k in range(classes):
        width, height, fill = shape_of(k)
        jitter = rng.uniform(0.95, 1.05, (per_class, 3))
        size = np.array([width, height]) * jitter[:, :2]
        rows.append(np.concatenate([size, size.prod(1, keepdims=True) * fill * np.minimum(jitter[:, 2:], 1)], 1))
    rows = np.concatenate(rows)
    boxes = np.concatenate([np.zeros((len(rows), 2)), rows[:, :2]], 1)
    label = np.repeat(np.arange(classes), per_class)
    return Objects(boxes, rows[:, 2], np.full((len(rows), 2), 500.0), label, ("",) * classes)


def test_classes_of_one_shape_share_a_parent():
    shapes = [(100, 20, 0.9), (20, 20, 0.5), (300, 300, 0.8)]
    found = objects(9, 20, lambda k: shapes[k % 3])
    assert same(geometric_tree(found, 3), [0, 3, 6], [1, 4, 7], [2, 5, 8])
    np.testing.assert_array_equal(geometric_tree(found, 3), geometric_tree(found, 3))


def test_a_class_without_objects_has_a_parent():
    found = objects(4, 10, lambda k: [(100, 20, 0.9), (20, 90, 0.5)][k % 2])
    missing = Objects(found.boxes, found.area, found.image_wh, found.label, ("",) * 5)
    parents = geometric_tree(missing, 2)
    assert parents.shape == (5,) and set(parents) <= {0, 1}


def test_rows_of_one_direction_share_a_parent():
    rng = np.random.default_rng(1)
    directions = np.eye(6)[[0, 0, 3, 3, 5, 5]] * rng.uniform(0.2, 3, (6, 1)) + 0.01 * rng.standard_normal((6, 6))
    kernel = np.concatenate([directions, rng.standard_normal((1, 6))]).T  # background last
    assert same(visual_tree(kernel, 3), [0, 1], [2, 3], [4, 5])


@pytest.mark.parametrize("count", [1, 3])
def test_classes_that_are_all_alike_are_split_somehow(count):
    parents = visual_tree(np.ones((4, 7)), count)
    assert parents.shape == (6,) and set(parents) == set(range(count))
