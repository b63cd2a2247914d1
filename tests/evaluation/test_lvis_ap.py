"""LVIS AP: the official numbers, an independent count, and what a wrong file is told."""

import gzip
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.data.lvis import AnnotationError
from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.report import ap_table

RECORDED = [f"{name}/{kind}" for name in ("v05", "v1", "v1_tail", "pseudo_k40") for kind in ("bbox", "segm")]


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_number(name, shared, tmp_path):
    folder = shared / "data" / "lvis_eval_ref"
    entry = json.loads((folder / "expected.json").read_text())[name]
    predictions = folder / entry["dt"]
    if predictions.suffix == ".gz":
        predictions = tmp_path / "predictions.json"
        predictions.write_bytes(gzip.decompress((folder / entry["dt"]).read_bytes()))
    found = evaluate_file(folder.parent / entry["gt"], predictions, entry["iou"]).metrics()
    assert set(found) == set(entry["LVISEval"])
    for metric, expected in entry["LVISEval"].items():
        assert found[metric] == pytest.approx(expected, abs=1e-9), metric


def rle(box, hw=(60, 80)):
    mask = np.zeros(hw, np.uint8, order="F")
    x, y, w, h = (int(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    found = coco_mask.encode(mask)
    return {"size": list(hw), "counts": found["counts"].decode("ascii")}


@pytest.fixture
def files(tmp_path):
    """Ground truth of two images and four classes, of our own; a function that writes detections."""
    images = [
        {
            "id": 1,
            "height": 60,
            "width": 80,
            "file_name": "1.jpg",
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [],
        },
        {
            "id": 2,
            "height": 60,
            "width": 80,
            "file_name": "2.jpg",
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [1],
        },
    ]
    boxes = [
        (1, 1, [0, 0, 40, 40]),
        (1, 1, [41, 0, 36, 40]),
        (2, 1, [10, 10, 40, 40]),
        (2, 2, [0, 0, 20, 20]),
        (1, 3, [5, 5, 50, 50]),
    ]
    annotations = [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "segmentation": rle(box),
        }
        for i, (image, category, box) in enumerate(boxes, 1)
    ]
    categories = [
        {"id": i, "name": str(i), "frequency": f, "image_count": 1, "instance_count": 1}
        for i, f in enumerate("fcrf", 1)
    ]
    ground_truth = tmp_path / "gt.json"
    ground_truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))

    def write(detections):
        path = tmp_path / "dt.json"
        path.write_text(detections if isinstance(detections, str) else json.dumps(detections))
        return path

    return ground_truth, write


def detection(image, category, box, score):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score, "segmentation": rle(box)}


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_a_case_small_enough_to_count_by_hand(files, iou_type):
    ground_truth, write = files
    detections = [
        detection(1, 1, [0, 0, 40, 40], 0.9),  # hit
        detection(1, 1, [0, 45, 30, 10], 0.8),  # false
        detection(1, 1, [41, 0, 36, 40], 0.7),  # hit
        detection(2, 1, [60, 0, 20, 20], 0.95),  # not exhaustively annotated there: ignored
        detection(2, 1, [10, 10, 40, 40], 0.6),  # hit
        detection(1, 2, [0, 0, 9, 9], 0.5),  # false, category 2 is known to be absent from image 1
        detection(2, 2, [0, 0, 20, 20], 0.4),  # hit
        detection(2, 3, [0, 0, 20, 20], 0.9),  # nothing is known of category 3 in image 2: ignored
        detection(1, 3, [5, 5, 50, 50], 0.3),  # hit
    ]
    found = evaluate_file(ground_truth, write(detections), iou_type).metrics()
    # Class 1: hits at ranks 1, 3, 4 of 4 -> precision 1 up to recall 1/3, then 3/4; on 101 recall points.
    first = (34 * 1.0 + 67 * 0.75) / 101
    assert found["APf"] == pytest.approx(first, abs=1e-6)
    assert found["APc"] == pytest.approx(0.5, abs=1e-6)
    assert found["APr"] == pytest.approx(1.0, abs=1e-6)
    assert found["AP"] == pytest.approx((first + 0.5 + 1.0) / 3, abs=1e-6)
    assert found["AR@300"] == pytest.approx(1.0)


def test_no_detections_at_all_score_zero(files):
    ground_truth, write = files
    found = evaluate_file(ground_truth, write([]), "bbox").metrics()
    assert found["AP"] == 0 and found["AR@300"] == 0


def test_category_ap_averages_to_ap(files):
    ground_truth, write = files
    scored = evaluate_file(ground_truth, write([detection(1, 1, [0, 0, 40, 40], 0.9)]), "bbox")
    ap = scored.metrics()["AP"]
    per_category = scored.category_ap()
    assert per_category[3] == -1 and per_category[per_category >= 0].mean() == pytest.approx(ap)


@pytest.mark.parametrize(
    ("detections", "iou_type", "named"),
    [
        ('{"a": 1}', "bbox", "must be a list"),
        ("[[1, 2]]", "bbox", "detection 0: not an object"),
        ("[1", "bbox", "not a json file"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5}], "bbox", "detection 0: no 'bbox'"),
        ([detection(1, 1, [0, 0, 9, 9], 0.5), detection(7, 1, [0, 0, 9, 9], 0.5)], "bbox", "detection 1: image id 7"),
        ([detection(1, 9, [0, 0, 9, 9], 0.5)], "bbox", "detection 0: category id 9"),
        ([{**detection(1, 1, [0, 0, 9, 9], 0.5), "bbox": [0, 0, None, 9]}], "bbox", "detection 0: bbox"),
        ([{**detection(1, 1, [0, 0, 9, 9], 0.5), "bbox": [0, 0, float("nan"), 9]}], "bbox", "detection 0: bbox"),
        ([detection(1, 1, [0, 0, 9, 9], float("inf"))], "bbox", "detection 0: score"),
        ([{**detection(1, 1, [0, 0, 9, 9], 0.5), "segmentation": rle([0, 0, 9, 9], (9, 9))}], "segm", "RLE of size"),
        ([{**detection(1, 1, [0, 0, 9, 9], 0.5), "segmentation": [[0, 0, 9, 9, 0, 9]]}], "segm", "compressed RLE"),
    ],
)
def test_what_is_no_results_file_is_named(files, detections, iou_type, named):
    ground_truth, write = files
    path = write(detections)
    with pytest.raises(UserError) as error:
        evaluate_file(ground_truth, path, iou_type)
    assert named in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(("key", "where"), [("neg_category_ids", "images"), ("frequency", "categories")])
def test_annotations_without_the_federated_fields_are_named(files, key, where):
    ground_truth, write = files
    content = json.loads(ground_truth.read_text())
    del content[where][0][key]
    ground_truth.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="frequency|neg_category_ids"):
        evaluate_file(ground_truth, write([]), "bbox")


def test_the_table_shows_per_cent_and_a_dash_for_what_cannot_count():
    metrics = dict.fromkeys(
        (f"bbox/{n}" for n in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")), 0.256
    )
    table = ap_table({**metrics, "bbox/AR@300": 0.5, "bbox/APr": -1.0})
    header, row = table.splitlines()
    assert header.split() == ["LVIS", "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300"]
    assert row.split() == ["bbox", *["25.6"] * 6, "-", "25.6", "25.6", "50.0"]
