"""COCO AP of a results file."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.errors import UserError
from c2am_jax.evaluation.coco_ap import evaluate_coco_file


@pytest.fixture
def files(tmp_path):
    images = [{"id": 1, "height": 60, "width": 80, "file_name": "1.jpg"}]
    boxes = [[0, 0, 40, 40], [41, 0, 36, 40]]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": b, "area": b[2] * b[3], "segmentation": []}
        for i, b in enumerate(boxes, 1)
    ]
    truth = tmp_path / "gt.json"
    categories = [{"id": 3, "name": "thing"}]
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))

    def write(content):
        (tmp_path / "dt.json").write_text(json.dumps(content))
        return tmp_path / "dt.json"

    return truth, write


def test_two_of_two_and_one_of_two(files):
    truth, write = files
    hit = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 40], "score": 0.9}
    assert evaluate_coco_file(truth, write([hit]), "bbox")["AP"] == pytest.approx(51 / 101)
    both = [hit, {**hit, "bbox": [41, 0, 36, 40]}]
    assert evaluate_coco_file(truth, write(both), "bbox")["AP"] == pytest.approx(1.0)
    nothing = evaluate_coco_file(truth, write([]), "bbox")
    assert nothing["AP"] == 0 and nothing["APl"] == -1  # no ground truth is large


def test_masks_count_by_their_pixels_and_a_crowd_forgives(files):
    truth, write = files
    content = json.loads(truth.read_text())
    left, crowd = np.zeros((2, 60, 80), np.uint8)
    left[:40, :20], crowd[:, 50:] = 1, 1
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 40], "area": 800, "segmentation": rle(left)},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 3,
            "bbox": [50, 0, 30, 60],
            "area": 1800,
            "segmentation": rle(crowd),
            "iscrowd": 1,
        },
    ]
    truth.write_text(json.dumps(content))
    half, inside = np.zeros((2, 60, 80), np.uint8)
    half[:40, :14], inside[10:20, 60:70] = 1, 1
    detections = [
        {"image_id": 1, "category_id": 3, "segmentation": rle(inside), "score": 0.9},
        {"image_id": 1, "category_id": 3, "segmentation": rle(half), "score": 0.8},
    ]
    lines = []
    found = evaluate_coco_file(truth, write(detections), "segm", show=lines.append)
    assert len(lines) == 1 and "left out, crowd region" in lines[0]  # nothing of what only LVIS AP needs
    assert found["AP"] == pytest.approx(0.5)  # IoU 0.7: five of ten thresholds; what lies in the crowd is ignored
    assert found["AP50"] == pytest.approx(1) and found["AP75"] == 0


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_what_does_not_fit_is_named(files):
    truth, write = files
    with pytest.raises(UserError, match="dt.json: detection 0: image id 9 is not in the annotations"):
        evaluate_coco_file(truth, write([{"image_id": 9, "category_id": 3, "bbox": [0, 0, 4, 4], "score": 1}]), "bbox")
    with pytest.raises(UserError, match="whose top level is a list"):
        evaluate_coco_file(truth, write({}), "bbox")
    with pytest.raises(UserError, match="bbox or segm"):
        evaluate_coco_file(truth, write([]), "boundary")
    damaged = {"image_id": 1, "category_id": 3, "segmentation": {"size": [60, 80], "counts": 7}, "score": 1}
    with pytest.raises(UserError, match="dt.json: detection 0: segmentation is not a compressed RLE"):
        evaluate_coco_file(truth, write([damaged]), "segm")
