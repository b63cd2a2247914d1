"""COCO AP of a results file."""

import json

import pytest

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
    assert evaluate_coco_file(truth, write([]), "bbox")["AP"] == 0


def test_what_does_not_fit_is_named(files):
    truth, write = files
    with pytest.raises(UserError, match="dt.json: does not fit"):
        evaluate_coco_file(truth, write([{"image_id": 9, "category_id": 3, "bbox": [0, 0, 4, 4], "score": 1}]), "bbox")
    with pytest.raises(UserError, match="must be a list"):
        evaluate_coco_file(truth, write({}), "bbox")
    with pytest.raises(UserError, match="bbox or segm"):
        evaluate_coco_file(truth, write([]), "boundary")
