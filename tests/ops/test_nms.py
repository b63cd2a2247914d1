"""NMS equals a naive greedy loop, of one set of boxes and per class, alone, under vmap and under shard_map.

Boxes have whole coordinates: their float32 areas are exact, so no rounding decides a comparison.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from c2am_jax.ops import nms as nms_module
from c2am_jax.ops.nms import multiclass_nms, nms


@pytest.fixture(params=["one_by_one", "fixed_point"])
def way(request, monkeypatch):
    """Both ways to the answer; CPU programs take the first by themselves."""
    if request.param == "fixed_point":
        monkeypatch.setattr(nms_module, "one_by_one", nms_module.fixed_point)
    return request.param


def clustered_boxes(rng, shape, clusters, spread=4, smallest=8):
    centre, size = rng.integers(0, 200, (clusters, 2)), rng.integers(smallest, 60, (clusters, 2))
    which = rng.integers(0, clusters, shape)
    low = centre[which] + rng.integers(-spread, spread + 1, (*shape, 2))
    high = low + size[which] + rng.integers(-spread, spread + 1, (*shape, 2))
    return np.concatenate([low, high], -1).astype(np.float32)


def overlaps(box, boxes):
    wh = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    intersection = wh[:, 0] * wh[:, 1]

    def area(b):
        return np.prod(np.maximum(b[..., 2:] - b[..., :2], 0), -1)

    union = area(box) + area(boxes) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def greedy(boxes, scores, candidates, iou_threshold):
    """Indices kept, best first: take the best remaining, drop what overlaps it, repeat."""
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[~(overlaps(boxes[best], boxes[order]) > np.float32(iou_threshold))]
    return np.array(kept, int)


def per_class_greedy(boxes_of, scores, roi_valid, score_threshold, iou_threshold, max_output):
    """(roi, label) of the best detections of all classes, ties by flat index; `boxes_of(k)` are class k's."""
    num_classes = scores.shape[1]
    flat = []
    for k in range(num_classes):
        candidates = np.flatnonzero(roi_valid & (scores[:, k] > np.float32(score_threshold)))
        flat.append(greedy(boxes_of(k), scores[:, k], candidates, iou_threshold) * num_classes + k)
    flat = np.sort(np.concatenate(flat))
    flat = flat[np.argsort(-scores.reshape(-1)[flat], kind="stable")][:max_output]
    return flat // num_classes, flat % num_classes


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5, 0.7])
def test_nms_equals_a_greedy_loop(iou_threshold, way):
    rng = np.random.default_rng(0)
    trials, n, max_output = 60, 50, 16
    boxes = clustered_boxes(rng, (trials, n), clusters=30)
    boxes[:, 10:20] = boxes[:, 30:40]  # duplicates
    boxes[:, 5, 2:] = boxes[:, 5, :2]  # empty
    scores = rng.random((trials, n)).astype(np.float32)
    scores[::2] = np.round(scores[::2], 1)  # many ties
    valid = rng.random((trials, n)) < 0.8
    valid[0], valid[1] = False, True
    run = jax.jit(jax.vmap(functools.partial(nms, iou_threshold=iou_threshold, max_output=max_output)))
    index, kept = (np.asarray(x) for x in run(*map(jnp.asarray, (boxes, scores, valid))))
    cut = 0
    for i in range(trials):
        every = greedy(boxes[i], scores[i], np.flatnonzero(valid[i]), iou_threshold)
        cut += len(every) > max_output
        expected = every[:max_output]
        np.testing.assert_array_equal(kept[i], np.arange(max_output) < len(expected))
        np.testing.assert_array_equal(index[i], np.pad(expected, (0, max_output - len(expected))))
    assert 0 < cut < trials  # some trials fill the output, some leave padding


def test_an_overlap_of_exactly_the_threshold_stays():
    boxes = jnp.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]], jnp.float32)  # IoU .5 and .6 with the first
    index, valid = nms(boxes, jnp.array([0.9, 0.8, 0.7]), jnp.ones(3, bool), iou_threshold=0.5, max_output=5)
    np.testing.assert_array_equal(index[valid], [0, 1])
    assert index.shape == (5,)


def test_a_suppressed_box_suppresses_nothing(way):
    """A chain in which each box overlaps the next: every second one stays, however long the chain."""
    x = 4 * jnp.arange(40, dtype=jnp.float32)
    boxes = jnp.stack([x, jnp.zeros(40), x + 10, jnp.full(40, 10.0)], 1)  # neighbours .43, next but one .11
    run = jax.jit(lambda s: nms(boxes, s, jnp.ones(40, bool), iou_threshold=0.3, max_output=40))
    index, valid = run(-x)
    np.testing.assert_array_equal(index[valid], np.arange(0, 40, 2))


@pytest.mark.parametrize("class_specific", [False, True], ids=["shared_boxes", "class_boxes"])
def test_multiclass_nms_equals_per_class_greedy_at_lvis_size(class_specific):
    rng = np.random.default_rng(1)
    scores = rng.random((1000, 1203), np.float32)
    roi_valid = rng.random(1000) < 0.9
    boxes = clustered_boxes(rng, (1000,), clusters=12, spread=2, smallest=24)
    class_shift = rng.integers(0, 3 if class_specific else 1, (1203, 4)).astype(np.float32)

    def box_fn(roi, label):
        return jnp.asarray(boxes)[roi] + jnp.asarray(class_shift)[label] * (roi % 3)[:, None]

    def boxes_of(k):
        return boxes + class_shift[k] * (np.arange(1000) % 3)[:, None].astype(np.float32)

    settings = {"score_threshold": 1e-4, "iou_threshold": 0.5, "max_output": 300}
    run = jax.jit(lambda s, v: multiclass_nms(s, box_fn, v, **settings))
    got_boxes, got_scores, labels, rois, valid = map(np.asarray, run(jnp.asarray(scores), jnp.asarray(roi_valid)))
    expected_rois, expected_labels = per_class_greedy(boxes_of, scores, roi_valid, 1e-4, 0.5, 300)
    assert valid.all()
    np.testing.assert_array_equal(rois, expected_rois)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(got_scores, scores[expected_rois, expected_labels])
    for box, roi, k in zip(got_boxes[:20], rois, labels, strict=False):
        np.testing.assert_array_equal(box, boxes_of(k)[roi])


@pytest.mark.parametrize("block", [16, 50, 4096])
def test_blocks_do_not_change_the_answer(block, way):
    """Under vmap: images that need one block, several, all of them or none; ties; short inputs."""
    rng = np.random.default_rng(2)
    images, r, k, max_output = 6, 60, 4, 24
    boxes = clustered_boxes(rng, (images, r, k), clusters=3, spread=2, smallest=24)
    boxes[2] = clustered_boxes(rng, (r, k), clusters=200)
    scores = np.round(rng.random((images, r, k)), 2).astype(np.float32)
    scores[3] *= 0.05
    scores[4] = 0.01  # not above the threshold
    roi_valid = rng.random((images, r)) < 0.9
    roi_valid[5, 3:] = False
    settings = {"score_threshold": 0.01, "iou_threshold": 0.5, "max_output": max_output}

    def run(boxes, scores, roi_valid):
        return multiclass_nms(scores, lambda roi, label: boxes[roi, label], roi_valid, **settings, block=block)

    outputs = jax.jit(jax.vmap(run))(*map(jnp.asarray, (boxes, scores, roi_valid)))
    got_boxes, got_scores, labels, rois, valid = map(np.asarray, outputs)
    found = []
    for i in range(images):
        image_boxes = boxes[i]
        expected_rois, expected_labels = per_class_greedy(
            lambda c, b=image_boxes: b[:, c], scores[i], roi_valid[i], 0.01, 0.5, max_output
        )
        n = len(expected_rois)
        np.testing.assert_array_equal(valid[i], np.arange(max_output) < n)
        np.testing.assert_array_equal(rois[i, :n], expected_rois)
        np.testing.assert_array_equal(labels[i, :n], expected_labels)
        np.testing.assert_array_equal(got_scores[i, :n], scores[i][expected_rois, expected_labels])
        np.testing.assert_array_equal(got_boxes[i, :n], boxes[i][expected_rois, expected_labels])
        for padded in (got_boxes, got_scores, labels, rois):
            np.testing.assert_array_equal(padded[i, n:], 0)
        found.append(n)
    assert found[2] == max_output and found[4] == 0 and 0 < found[0] < max_output


def test_only_candidates_are_decoded():
    seen = []

    def box_fn(roi, label):
        seen.append(roi.shape)
        return jnp.zeros((roi.shape[0], 4))

    scores = jnp.ones((50, 10))
    multiclass_nms(scores, box_fn, jnp.ones(50, bool), score_threshold=0.1, iou_threshold=0.5, max_output=5, block=32)
    assert set(seen) == {(32,)}


def test_nms_runs_per_device_under_shard_map(way):
    """With check_vma on, and with the constant validity that a caller may pass."""
    rng = np.random.default_rng(3)
    boxes = jnp.asarray(clustered_boxes(rng, (16, 30), clusters=6))
    scores = jnp.asarray(rng.random((16, 30, 3)), jnp.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def image(boxes, scores):
        valid = jnp.ones(30, bool)
        detections = multiclass_nms(
            scores,
            lambda roi, label: boxes[roi] + label[:, None],
            valid,
            score_threshold=0.2,
            iou_threshold=0.5,
            max_output=12,
            block=16,
        )
        return nms(boxes, scores[:, 0], valid, iou_threshold=0.5, max_output=40), detections

    local = jax.vmap(image)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=True)
    alone, spread = jax.jit(local)(boxes, scores), jax.jit(sharded)(boxes, scores)
    jax.tree.map(np.testing.assert_array_equal, alone, spread)
    assert alone[0][1].any() and alone[1][-1].any()


def test_no_boxes_leave_no_survivors():
    index, valid = nms(jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, bool), iou_threshold=0.5, max_output=3)
    np.testing.assert_array_equal(index, [0, 0, 0])
    assert index.dtype == jnp.int32 and not valid.any() and valid.shape == (3,)
