"""Matching priors to ground truths: a plain loop over the reference's rule, and its recorded choices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops.anchors import AnchorGrid, feature_shapes, pyramid_anchors
from c2am_jax.ops.boxes import pairwise_iou
from c2am_jax.ops.matching import BLOCK, IGNORED, NEGATIVE, POSITIVE, MatchRule, match, match_boxes
from c2am_jax.ops.sampling import sample

RPN, ROI = MatchRule(0.7, 0.3, 0.3, True), MatchRule(0.5, 0.5, 0.5, True)
ANCHORS = {"strides": (4, 8, 16, 32, 64), "scale": 8.0, "ratios": (0.5, 1.0, 2.0)}


def naive(iou, gt_valid, prior_valid, *, positive_iou, negative_iou, min_positive_iou, match_low_quality):
    """One prior and one ground truth after the other."""
    kind, gt_index = [], []
    for n in range(iou.shape[1]):
        best, best_gt = -1.0, 0
        for g in np.flatnonzero(gt_valid):
            if iou[g, n] > best:
                best, best_gt = iou[g, n], g
        if best >= positive_iou:
            kind.append(POSITIVE)
        else:
            kind.append(NEGATIVE if best < negative_iou else IGNORED)
        gt_index.append(best_gt)
    if match_low_quality:
        for g in np.flatnonzero(gt_valid):
            best = max((iou[g, n] for n in np.flatnonzero(prior_valid)), default=-1.0)
            for n in range(iou.shape[1]):
                if best >= min_positive_iou and iou[g, n] == best:
                    kind[n], gt_index[n] = POSITIVE, g
    kind = np.where(prior_valid, kind, IGNORED)
    return kind, np.where(kind == POSITIVE, gt_index, 0)


@pytest.mark.parametrize("match_low_quality", [True, False])
@pytest.mark.parametrize("settings", [RPN, ROI], ids=["rpn", "roi"])
def test_match_equals_a_plain_loop(settings, match_low_quality):
    settings = dataclasses.replace(settings, match_low_quality=match_low_quality)
    rng = np.random.default_rng(0)
    # Few distinct values, so that ties between ground truths and between priors are common.
    iou = (rng.integers(0, 21, (40, 6, 30)) / np.float32(20)).astype(np.float32) * rng.random((40, 1, 1)) ** 0.5
    iou = iou.astype(np.float32)
    gt_valid, prior_valid = rng.random((40, 6)) < 0.7, rng.random((40, 30)) < 0.8
    gt_valid[0], prior_valid[1] = False, False
    rule = jax.jit(jax.vmap(functools.partial(match, rule=settings)))
    matches = rule(jnp.asarray(iou), jnp.asarray(gt_valid), jnp.asarray(prior_valid))
    for i in range(40):
        # The settings compare in float32.
        limits = {k: v if isinstance(v, bool) else np.float32(v) for k, v in vars(settings).items()}
        kind, gt_index = naive(iou[i], gt_valid[i], prior_valid[i], **limits)
        np.testing.assert_array_equal(matches.kind[i], kind)
        np.testing.assert_array_equal(matches.gt_index[i], gt_index)


def test_every_ground_truth_gets_its_best_prior_and_later_ones_overwrite():
    iou = jnp.array([[0.4, 0.4, 0.1], [0.1, 0.4, 0.0], [0.2, 0.0, 0.0]], jnp.float32)
    matches = match(iou, jnp.ones(3, bool), jnp.ones(3, bool), RPN)
    # Both best priors of the first are claimed; the second, later, takes one; the third's .2 is below .3.
    np.testing.assert_array_equal(matches.kind, [POSITIVE, POSITIVE, NEGATIVE])
    np.testing.assert_array_equal(matches.gt_index, [0, 1, 0])


def test_a_best_prior_at_exactly_the_minimum_is_claimed():
    iou = jnp.array([[0.3, 0.1], [0.0, 0.2]], jnp.float32)
    everything = jnp.ones(2, bool)
    low = match(iou, everything, everything, dataclasses.replace(RPN, negative_iou=0.4))
    np.testing.assert_array_equal(low.kind, [POSITIVE, NEGATIVE])


def test_without_ground_truth_all_valid_priors_are_negative():
    matches = match(jnp.ones((2, 3)), jnp.zeros(2, bool), jnp.array([True, False, True]), RPN)
    np.testing.assert_array_equal(matches.kind, [NEGATIVE, IGNORED, NEGATIVE])
    np.testing.assert_array_equal(matches.gt_index, 0)


def test_low_quality_equality_survives_compilation():
    """IoU and matching in one program: every ground truth with a good enough prior is matched by one."""
    rng = np.random.default_rng(1)
    anchors = jnp.asarray(np.concatenate(pyramid_anchors((128, 160), **ANCHORS)))
    centre, size = rng.uniform(20, 110, (64, 40, 2)), rng.uniform(20, 60, (64, 40, 2))
    gts = jnp.asarray(np.concatenate([centre - size / 2, centre + size / 2], -1), jnp.float32)
    all_gts, all_priors = jnp.ones(40, bool), jnp.ones(len(anchors), bool)

    def unmatched(boxes):
        iou = pairwise_iou(boxes, anchors)
        matches = match(iou, all_gts, all_priors, RPN)
        # The best prior of a ground truth is positive, for it or for another.
        return (matches.kind[iou.argmax(1)] != POSITIVE) & (iou.max(1) > 0.301)

    missed = jax.jit(functools.partial(jax.lax.map, unmatched))(gts)
    assert not missed.any()


@pytest.mark.parametrize("match_low_quality", [True, False])
@pytest.mark.parametrize("known", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_matching_in_blocks_gives_the_same_as_at_once(known, match_low_quality):
    """Whole coordinates, so that ties are common; what lies behind the last valid ground truth is never looked at."""
    rng = np.random.default_rng(known)
    low, size = rng.integers(0, 60, (3 * BLOCK - 5, 2)), rng.integers(8, 40, (3 * BLOCK - 5, 2))
    gts = jnp.asarray(np.concatenate([low, low + size], -1), jnp.float32).at[known:].set(jnp.nan)
    priors = jnp.asarray(np.concatenate(pyramid_anchors((64, 96), **ANCHORS)).round())
    valid = jnp.asarray((rng.random(len(gts)) < 0.9) & (np.arange(len(gts)) < known))
    taking_part = jnp.asarray(rng.random(len(priors)) < 0.8)
    rule = dataclasses.replace(RPN, match_low_quality=match_low_quality)
    expected = match(pairwise_iou(gts, priors), valid, taking_part, rule)
    matches = jax.jit(functools.partial(match_boxes, rule=rule))(gts, valid, priors, taking_part)
    for name in ("kind", "gt_index"):
        np.testing.assert_array_equal(getattr(matches, name), getattr(expected, name))
    assert (matches.kind == POSITIVE).any() or not (match_low_quality and valid.any())


@pytest.mark.parametrize("file", ["mask_rcnn_r50", "mask_rcnn_r50_padded", "cascade_mask_rcnn_r50"])
def test_anchors_are_matched_and_sampled_as_recorded(shared, file):
    allowed_border = 0 if file.startswith("cascade") else -1
    with np.load(shared / f"reference/golden/{file}.npz") as golden:
        bucket = tuple(int(x) for x in golden["input_shape"][2:])
        anchors = jnp.asarray(np.concatenate(pyramid_anchors(bucket, **ANCHORS)))
        for i in range(2):
            hw = jnp.array(golden[f"image_{i}"].shape[:2])
            grid = AnchorGrid(tuple(feature_shapes(bucket, ANCHORS["strides"])), **ANCHORS)
            taking_part = grid.inside(jnp.arange(len(anchors)), hw, allowed_border=allowed_border)
            gts = jnp.asarray(golden[f"gt_boxes_{i}"])
            matches = match(pairwise_iou(gts, anchors), jnp.ones(len(gts), bool), taking_part, RPN)
            samples = sample(None, matches.kind, num=256, positive_fraction=0.5)
            _, positives, negatives = golden[f"sample_rpn_{i}.counts"]
            assert (matches.kind == POSITIVE).sum() == positives
            assert (matches.kind == NEGATIVE).sum() == negatives
            check_samples(golden, f"sample_rpn_{i}", samples, matches, np.flatnonzero(taking_part))


@pytest.mark.parametrize("file", ["mask_rcnn_r50", "mask_rcnn_r50_padded"])
def test_proposals_are_matched_and_sampled_as_recorded(shared, file):
    with np.load(shared / f"reference/golden/{file}.npz") as golden:
        for i in range(2):
            gts, proposals = golden[f"gt_boxes_{i}"], golden[f"train_proposals_{i}"]
            priors = jnp.asarray(np.concatenate([gts, proposals]))
            iou = pairwise_iou(jnp.asarray(gts), priors)
            matches = match(iou, jnp.ones(len(gts), bool), jnp.ones(len(priors), bool), ROI)
            samples = sample(None, matches.kind, num=512, positive_fraction=0.25)
            check_samples(golden, f"sample_roi_s0_{i}", samples, matches, np.arange(len(priors)))
            np.testing.assert_array_equal(priors[samples.index], golden[f"sample_roi_s0_{i}.rois"])


def check_samples(golden, key, samples, matches, prior_of):
    index, positive, valid = (np.asarray(x) for x in (samples.index, samples.positive, samples.valid))
    np.testing.assert_array_equal(index[positive], prior_of[golden[f"{key}.pos_inds"]])
    np.testing.assert_array_equal(index[valid & ~positive], prior_of[golden[f"{key}.neg_inds"]])
    np.testing.assert_array_equal(np.asarray(matches.gt_index)[index[positive]], golden[f"{key}.pos_gt"])
