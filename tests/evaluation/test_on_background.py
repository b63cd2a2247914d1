"""Detections on background, against a count by hand over every pair of boxes."""

import json

import numpy as np
import pytest
from random_results import random_set

from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.on_background import NEAR, on_background
from c2am_jax.frequency import GROUPS


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    union = a[2] * a[3] + b[2] * b[3] - both
    return both / union if union > 0 else 0.0


def by_hand(truths, predictions, cap):
    """Detections that count and those of them on background, by group's letter, and the number of images."""
    data, found = json.loads(truths.read_text()), json.loads(predictions.read_text())
    group = {c["id"]: c["frequency"] for c in data["categories"]}
    counted, background = dict.fromkeys("rcf", 0), dict.fromkeys("rcf", 0)
    for image in data["images"]:
        objects = [a for a in data["annotations"] if a["image_id"] == image["id"] and a["area"] > 0]  # the rest is none
        verified = {a["category_id"] for a in objects} | set(image["neg_category_ids"])
        own = sorted((d for d in found if d["image_id"] == image["id"]), key=lambda d: -d["score"])[:cap]
        for d in (d for d in own if d["category_id"] in verified and d["bbox"][2] * d["bbox"][3] > 0):
            counted[group[d["category_id"]]] += 1
            background[group[d["category_id"]]] += all(iou(d["bbox"], a["bbox"]) < NEAR for a in objects)
    return counted, background, len(data["images"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [2, 7, 300])
def test_detections_on_background_are_those_counted_by_hand(tmp_path, seed, cap):
    truths, predictions = random_set(tmp_path, seed)
    scored = evaluate_file(truths, predictions, "bbox", workers=1, evidence=True)
    counted, background, images = by_hand(truths, predictions, cap)
    rows = on_background(scored.evidence, scored.categories, cap)
    assert [row["group"] for row in rows] == ["all", *GROUPS.values()] and sum(background.values()) > 0
    for row, letter in zip(rows[1:], "rcf", strict=True):
        assert row["detections"] == pytest.approx(counted[letter] / images)
        assert row["background"] == pytest.approx(background[letter] / images)
        expected = background[letter] / counted[letter] if counted[letter] else None
        assert row["share"] == (None if expected is None else pytest.approx(expected))
    np.testing.assert_allclose(rows[0]["background"], sum(background.values()) / images)
