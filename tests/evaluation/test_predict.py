"""From detections in input pixels to results entries at the original size."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.evaluation.predict import to_results
from c2am_jax.structures import Detections


def detections(boxes, valid=None, masks=None):
    count = len(boxes)
    return Detections(
        boxes=np.asarray(boxes, np.float32),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        labels=np.arange(count) % 3,
        masks=np.ones((count, 28, 28), np.float32) if masks is None else masks,
        valid=np.ones(count, bool) if valid is None else np.asarray(valid),
    )


def entries(found):
    return list(to_results(found, 42, np.array([60, 120]), np.array([30, 40]), np.array([5, 7, 9])))


def test_boxes_are_scaled_by_each_axis_and_clipped():
    (box, _), (outside, _) = entries(detections([[30, 20, 60, 40], [90, 50, 200, 100]]))
    assert box["bbox"] == pytest.approx([10, 10, 10, 10]) and outside["bbox"] == pytest.approx([30, 25, 10, 5])
    assert (box["image_id"], box["category_id"], outside["category_id"]) == (42, 5, 7)
    assert box["score"] == pytest.approx(0.9)


def test_masks_are_compressed_rle_of_the_original_size():
    half = np.zeros((1, 28, 28), np.float32)
    half[:, :, :14] = 1
    ((_, entry),) = entries(detections([[30, 20, 60, 40]], masks=half))
    mask = coco_mask.decode(entry["segmentation"])
    assert mask.shape == (30, 40) and mask[10:20, 10:15].all() and mask.sum() == 50


def test_padding_is_left_out():
    assert len(entries(detections([[0, 0, 9, 9]] * 3, valid=[True, False, True]))) == 2


def test_masks_do_not_leak_into_the_next_detection():
    first, second = entries(detections([[0, 0, 60, 30], [60, 30, 120, 60]]))
    masks = [coco_mask.decode(e["segmentation"]) for _, e in (first, second)]
    assert not (masks[0] & masks[1]).any() and masks[0].sum() == masks[1].sum() == 15 * 20
