"""What is taken for what, and what is worth a picture: against plain loops over images."""

import collections

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.report.gallery import chosen
from c2am_jax.report.inspection import PER_CATEGORY, Candidate, boxes, inspect

THRESHOLD = 0.4


@pytest.fixture(scope="module")
def scored(evaluation):
    return evaluate_file(evaluation["annotations"], evaluation["boxes"], "bbox", evidence=True)


@pytest.fixture(scope="module")
def found(scored):
    return inspect(scored.evidence, THRESHOLD)


def every(found, kind):
    return [candidate for of in found.candidates[kind].values() for candidate in of]


def test_confusions_as_counted_one_by_one(scored, found):
    problem = scored.evidence.problem
    truths, detections = problem.truths, problem.detections
    truth_label, label = truths.labels(), detections.labels()
    right, pairs = collections.Counter(), collections.Counter()
    for g in range(len(truths.image)):
        here = np.flatnonzero(detections.image == truths.image[g])
        best = None
        for d in sorted(here, key=lambda d: -detections.score[d]):
            others = np.flatnonzero((truths.image == truths.image[g]) & (truth_label == label[d]))

            def iou(t, d=d):
                return coco_mask.iou(detections.box[d][None], truths.box[t][None], [0])[0, 0]

            about_another = label[d] != truth_label[g] and any(iou(t) >= 0.5 for t in others)
            if iou(g) >= 0.5 and not about_another:
                best = d
                break
        if best is not None and label[best] == truth_label[g]:
            right[truth_label[g]] += 1
        elif best is not None:
            pairs[truth_label[g], label[best]] += 1
    assert sum(pairs.values()) > 3 and sum(right.values()) > 10
    assert {(i, j): n for i, j, n in found.pairs.tolist()} == pairs
    assert dict(enumerate(found.right)) == {k: right[k] for k in range(6)}
    assert found.objects.sum() == len(truths.image)


def test_false_detections_are_those_that_the_evaluator_counts(scored, found):
    false = sum(int((~r.hits & (r.scores >= THRESHOLD)).sum()) for r in scored.results)
    kept = every(found, "false")
    assert kept and len(kept) == sum(
        min(int((~r.hits & (r.scores >= THRESHOLD)).sum()), PER_CATEGORY) for r in scored.results
    )
    assert len(kept) <= false
    for label, candidates in found.candidates["false"].items():
        expected = sorted(scored.results[label].scores[~scored.results[label].hits], reverse=True)
        assert [c.quality for c in candidates] == pytest.approx(expected[: len(candidates)])


def test_missed_objects_have_no_detection_of_their_category_on_them(scored, found):
    problem = scored.evidence.problem
    label = problem.detections.labels()
    assert every(found, "missed")
    for candidate in every(found, "missed"):
        own = (problem.detections.image == candidate.image) & (label == candidate.label)
        for d in np.flatnonzero(own & (problem.detections.score >= THRESHOLD)):
            # What touches it lies nearer to another object of the category.
            ious = coco_mask.iou(problem.detections.box[d][None], problem.truths.box, [0] * len(problem.truths.box))[0]
            same = (problem.truths.image == candidate.image) & (problem.truths.labels() == candidate.label)
            assert ious[candidate.truth] < 0.1 or ious[candidate.truth] < ious[same].max()


def test_best_and_worst_name_the_overlap_of_their_boxes(scored, found):
    problem = scored.evidence.problem
    for kind in ("best", "worst"):
        for c in every(found, kind):
            pair = problem.detections.box[c.detection][None], problem.truths.box[c.truth][None]
            assert c.overlap == pytest.approx(coco_mask.iou(*pair, [0])[0, 0])
            assert problem.detections.labels()[c.detection] == problem.truths.labels()[c.truth] == c.label
            assert problem.detections.score[c.detection] >= THRESHOLD
    assert all(c.overlap >= 0.5 for c in every(found, "best"))


def test_masks_alone_have_the_boxes_around_them(evaluation, found):
    scored = evaluate_file(evaluation["annotations"], evaluation["masks"], "segm", evidence=True)
    again = inspect(scored.evidence, THRESHOLD)
    assert again.pairs.tolist() == found.pairs.tolist() and again.right.tolist() == found.right.tolist()
    detections = scored.evidence.problem.detections
    with open(evaluation["masks"], "rb") as file:
        around = boxes(detections, np.arange(5), file)
    boxed = evaluate_file(evaluation["annotations"], evaluation["boxes"], "bbox", evidence=True)
    assert np.isnan(detections.box).all() and around == pytest.approx(boxed.evidence.problem.detections.box[:5])


def test_no_detections_miss_everything(evaluation):
    scored = evaluate_file(evaluation["annotations"], evaluation["nothing"], "bbox", evidence=True)
    found = inspect(scored.evidence, THRESHOLD)
    assert not len(found.pairs) and not found.right.any()
    assert not every(found, "best") and not every(found, "false")
    assert all(c.detection == -1 and c.overlap == 0 for c in every(found, "missed")) and every(found, "missed")


def test_without_evidence_nothing_is_kept(evaluation):
    assert evaluate_file(evaluation["annotations"], evaluation["boxes"], "bbox").evidence is None


def test_pictures_spread_over_groups_categories_and_images(scored):
    table = scored.categories
    many = {
        k: [Candidate(1 - 0.1 * i - 0.01 * k, 10 * k + i, i, i, 0.9, k) for i in range(3)] for k in range(len(table))
    }
    picked = chosen(many, table, 6)
    assert [table.frequency[c.label] for c in picked] == list("rcfrcf")
    assert sorted(c.label for c in picked) == list(range(6))  # each category before any a second time
    same_image = {0: [Candidate(0.9, 1, 0, 0, 1, 0), Candidate(0.8, 2, 1, 1, 1, 0)], 2: [Candidate(1.0, 1, 2, 2, 1, 2)]}
    assert [c.image for c in chosen(same_image, table, 2)] == [1, 1]
    assert len(chosen(same_image, table, 9)) == 3
