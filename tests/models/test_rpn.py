"""The RPN reads sampled anchors alone, as if it had computed all of them, and resamples proposals by class groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2am_jax.models.architecture import RPNSettings
from c2am_jax.models.rpn import RPNHead
from c2am_jax.ops import boxes as box_ops
from c2am_jax.structures import Inputs


def dense(head, features, index):
    """Logits and deltas of `index` out of everything."""
    output = head(features)
    batch = features[0].shape[0]
    logits = jnp.concatenate([cls.reshape(batch, -1) for cls, _ in output], 1)
    deltas = jnp.concatenate([reg.reshape(batch, -1, 4) for _, reg in output], 1)
    return jnp.take_along_axis(logits, index, 1), jnp.take_along_axis(deltas, index[..., None], 1)


def test_values_and_gradients_at_all_anchors_are_those_of_the_whole_map():
    rng = np.random.default_rng(0)
    head = RPNHead(8, RPNSettings(strides=(4, 8, 16)), rngs=nnx.Rngs(0))
    features = [jnp.asarray(rng.standard_normal((2, h, w, 8)), jnp.float32) for h, w in ((6, 10), (3, 5), (2, 3))]
    anchors = 3 * (60 + 15 + 6)
    index = jnp.asarray(np.stack([rng.permutation(anchors) for _ in range(2)]))
    graph, params = nnx.split(head)

    def value(way, params, features):
        logits, deltas = way(nnx.merge(graph, params), features, index)
        weight = jnp.linspace(-1, 1, logits.size).reshape(logits.shape)
        return (weight * logits).sum() + (weight[..., None] * jnp.square(deltas)).sum(), (logits, deltas)

    def both(way):
        return jax.jit(jax.value_and_grad(lambda *a: value(way, *a), argnums=(0, 1), has_aux=True))(params, features)

    (_, found), found_gradient = both(lambda head, features, index: head.at(features, index))
    (_, wanted), wanted_gradient = both(dense)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found_gradient, wanted_gradient)


THRESHOLDS = (0.9, 0.8, 0.7)  # rare, common, frequent


def greedy(boxes, scores, threshold):
    """Survivors of plain NMS, best first."""
    overlap, kept = np.asarray(box_ops.pairwise_iou(boxes, boxes)), []
    for i in np.argsort(-scores, kind="stable"):
        if all(overlap[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


def resampled(boxes, scores, near, groups):
    """Survivors of each group's own run that are near the group; the same box may come from two of them."""
    rare, common = (near[groups == which].any(0) for which in (0, 1))
    wanted = rare, common, ~rare & ~common
    return [i for t, own in zip(THRESHOLDS, wanted, strict=True) for i in greedy(boxes, scores, t) if own[i]]


def test_resampled_proposals_are_those_of_three_runs():
    rng, size = np.random.default_rng(4), 64
    groups = np.array([0, 1, 2])
    settings = RPNSettings(
        anchor_scale=4.0,
        strides=(4,),
        pre_nms_train=300,
        pre_nms_test=300,
        post_nms_train=900,
        resampling_ious=THRESHOLDS,
    )
    head = RPNHead(8, settings, class_groups=groups, rngs=nnx.Rngs(0))
    logits = rng.standard_normal((2, 16, 16, 3)).astype(np.float32)
    output = [(jnp.asarray(logits), jnp.asarray(0.2 * rng.standard_normal((2, 16, 16, 12)), jnp.float32))]
    truths = np.array([[8, 8, 30, 30], [34, 8, 56, 34], [8, 34, 30, 60], [12, 10, 34, 32]], np.float32)
    inputs = Inputs(
        image=jnp.zeros((2, size, size, 3)),
        image_hw=jnp.full((2, 2), size),
        boxes=jnp.asarray(np.stack([truths] * 2)),
        labels=jnp.asarray([[0, 1, 2, 1]] * 2),
        masks=jnp.zeros((2, 4, 1, 1), jnp.uint8),
        mask_frames=jnp.asarray(np.stack([truths] * 2)),
        valid=jnp.asarray([[True, True, True, True], [True, True, True, False]]),
    )
    image_hw = jnp.full((2, 2), size)
    found = head.propose(output, image_hw, train=True, inputs=inputs)
    everything = RPNHead(
        8, RPNSettings(anchor_scale=4.0, strides=(4,), nms_iou=1.0, pre_nms_train=300), rngs=nnx.Rngs(0)
    )
    candidates = everything.propose(output, image_hw, train=True)
    twice = 0
    for image in range(2):
        valid = np.asarray(candidates.valid[image])
        boxes, scores = (np.asarray(a[image])[valid] for a in (candidates.boxes, candidates.scores))
        kept_truths = np.asarray(inputs.valid[image])
        near = np.asarray(box_ops.pairwise_iou(truths[kept_truths], boxes)) >= 0.3
        expected = resampled(boxes, scores, near, groups[np.asarray(inputs.labels[image])[kept_truths]])
        twice += len(expected) - len(set(expected))
        own = np.asarray(found.valid[image])

        def rows(b, s):
            return sorted(map(tuple, np.round(np.concatenate([b, s[:, None]], 1), 4)))

        assert rows(np.asarray(found.boxes[image])[own], np.asarray(found.scores[image])[own]) == rows(
            boxes[expected], scores[expected]
        )
    assert twice > 0
    plain = head.propose(output, image_hw, train=False)
    assert plain.valid.sum() < found.valid.sum()
    with pytest.raises(ValueError, match="reads ground truths"):
        head.propose(output, image_hw, train=True)


def test_resampling_needs_three_thresholds_and_groups():
    with pytest.raises(ValueError, match=r"resampling_ious=\(0\.9,\).*rare, common, frequent"):
        RPNSettings(resampling_ious=(0.9,))
    with pytest.raises(ValueError, match="needs the frequency group"):
        RPNHead(8, RPNSettings(resampling_ious=THRESHOLDS), rngs=nnx.Rngs(0))
