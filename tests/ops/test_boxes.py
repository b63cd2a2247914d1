"""Boxes: areas, overlaps and the delta coder, degenerate rows included."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops.boxes import area, clip, decode_deltas, encode_deltas, pairwise_iou

STDS = (0.1, 0.1, 0.2, 0.2)
# Empty, a line, inside out, a point far away.
DEGENERATE = jnp.array([[0, 0, 0, 0], [5, 5, 9, 5], [9, 9, 2, 3], [1e4, 1e4, 1e4, 1e4]], jnp.float32)


def random_boxes(seed: int, n: int) -> jax.Array:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 100, (n, 2))
    return jnp.asarray(np.concatenate([low, low + rng.uniform(4, 80, (n, 2))], 1), jnp.float32)


def test_iou_of_known_overlaps():
    a = jnp.array([[0, 0, 10, 10]], jnp.float32)
    b = jnp.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 7]], jnp.float32)
    np.testing.assert_allclose(pairwise_iou(a, b), [[1, 1 / 3, 0, 0.1]], rtol=1e-6)


def test_iou_is_symmetric_and_bounded():
    a, b = random_boxes(0, 20), random_boxes(1, 30)
    iou = np.asarray(pairwise_iou(a, b))
    np.testing.assert_array_equal(iou, np.asarray(pairwise_iou(b, a)).T)
    assert iou.min() >= 0 and 0 < iou.max() <= 1


def test_degenerate_boxes_have_no_area_and_no_overlap():
    np.testing.assert_array_equal(area(DEGENERATE), 0)
    np.testing.assert_array_equal(pairwise_iou(DEGENERATE, DEGENERATE), 0)
    np.testing.assert_array_equal(pairwise_iou(DEGENERATE, random_boxes(0, 5)), 0)


def test_clip_keeps_the_far_edge():
    boxes = jnp.array([[-3, -4, 50, 60], [2, 3, 20, 10], [70, 70, 90, 90]], jnp.float32)
    expected = [[0, 0, 20, 10], [2, 3, 20, 10], [20, 10, 20, 10]]
    np.testing.assert_array_equal(clip(boxes, jnp.array([10, 20])), expected)


def test_encode_gives_the_written_formula():
    deltas = encode_deltas(jnp.array([[0.0, 0, 10, 20]]), jnp.array([[5.0, 0, 25, 10]]), STDS)
    expected = [1.0 / 0.1, -0.25 / 0.1, math.log(2) / 0.2, math.log(0.5) / 0.2]
    np.testing.assert_allclose(deltas, [expected], rtol=1e-6)


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), STDS])
def test_decode_inverts_encode(stds):
    anchors, targets = random_boxes(2, 50), random_boxes(3, 50)
    deltas = encode_deltas(anchors, targets, stds)
    np.testing.assert_allclose(decode_deltas(anchors, deltas, stds), targets, atol=1e-3)


@pytest.mark.parametrize("sign", [-1, 1])
def test_decode_limits_growth_and_shrinking(sign):
    anchor = jnp.array([[0.0, 0, 16, 16]])
    box = decode_deltas(anchor, jnp.array([[0.0, 0, sign * 50, sign * 4.2]]))
    side = 16 * (1000 / 16) ** sign
    np.testing.assert_allclose(box[0, 2:] - box[0, :2], [side, side], rtol=1e-5)


def test_degenerate_rows_stay_finite():
    good = random_boxes(4, 4)
    for anchors in (DEGENERATE, good):
        for targets in (DEGENERATE, good):
            deltas = encode_deltas(anchors, targets, STDS)
            assert np.isfinite(deltas).all()
            assert np.isfinite(decode_deltas(anchors, deltas, STDS)).all()


def test_numpy_anchors_are_accepted():
    boxes = random_boxes(5, 3)
    np.testing.assert_array_equal(pairwise_iou(np.asarray(boxes), boxes), pairwise_iou(boxes, boxes))
    zero = jnp.zeros((3, 4))
    np.testing.assert_array_equal(decode_deltas(np.asarray(boxes), zero), decode_deltas(boxes, zero))
