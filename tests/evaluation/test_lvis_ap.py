"""LVIS AP: the official numbers, an independent count, and what a wrong file is told."""

import csv
import gzip
import json

import numpy as np
import pytest
from etils import epath
from pycocotools import mask as coco_mask
from random_results import random_set, rle

from c2am_jax.data.evaluation_json import write_evaluation_json
from c2am_jax.data.lvis import category_table
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.minival import chosen_images, images_in
from c2am_jax.errors import UserError
from c2am_jax.evaluation.ap_matching import boundary
from c2am_jax.evaluation.coco_ap import evaluate_coco_file
from c2am_jax.evaluation.lvis_ap import ALL_IOU_TYPES, evaluate_file
from c2am_jax.evaluation.official import official_metrics
from c2am_jax.evaluation.tables import ap_table, write_csv

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
        assert found[metric] == pytest.approx(expected, abs=1e-12), metric


def package_copy(truths):
    """What the package can be given: it knows neither crowds nor masks that are none."""
    copy = truths.with_name("copy.json")
    write_evaluation_json(scan(truths), epath.Path(copy), masks=True, ids=False)
    return copy


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("boxes", [True, False], ids=["with boxes", "masks alone"])
def test_random_sets_score_as_the_package_scores_them(tmp_path, seed, boxes):
    truths, predictions = random_set(tmp_path, seed)
    if not boxes:
        found = [{k: v for k, v in entry.items() if k != "bbox"} for entry in json.loads(predictions.read_text())]
        predictions.write_text(json.dumps(found))
    copy = package_copy(truths)
    for kind in ("bbox", "segm") if boxes else ("segm",):
        found, expected = evaluate_file(truths, predictions, kind).metrics(), official_metrics(copy, predictions, kind)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(float(value), abs=1e-12), (kind, name)
        assert found == evaluate_file(copy, predictions, kind).metrics()


@pytest.mark.parametrize(
    ("areas", "masks", "expected"),
    [
        ((1600,), ("empty", "exact"), 1.0),  # an empty mask of a higher score is no detection
        ((1600, 0), ("exact", "exact"), 1.0),  # a truth of area 0 is none
        ((0,), ("exact",), -1.0),  # and if it is the only one, the category is not there
    ],
)
def test_objects_of_area_0_are_none_as_in_the_package(tmp_path, areas, masks, expected):
    place = [[0, 0, 40, 40], [40, 10, 40, 40]]
    image = {"id": 1, "file_name": "x", "height": 60, "width": 80}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotations = [{**detection(1, 1, place[i], 1), "id": i + 1, "area": area} for i, area in enumerate(areas)]
    content = {"images": [image], "annotations": annotations, "categories": [{**CATEGORY, "id": 1, "name": "a"}]}
    truths, predictions = tmp_path / "gt.json", tmp_path / "dt.json"
    truths.write_text(json.dumps(content))
    found = [
        {**detection(1, 1, place[0], 0.9 - 0.4 * i), "segmentation": rle(place[0] if mask == "exact" else [0] * 4)}
        for i, mask in enumerate(masks)
    ]
    predictions.write_text(json.dumps([{k: v for k, v in entry.items() if k != "bbox"} for entry in found]))
    scored = evaluate_file(truths, predictions, "segm").metrics()["AP"]
    assert scored == pytest.approx(expected)
    assert scored == pytest.approx(official_metrics(truths, predictions, "segm")["AP"])


def test_the_best_of_an_image_count_as_in_the_package(tmp_path):
    """More than 300 detections in an image, with ties at the border."""
    truths, results = random_set(tmp_path, 3)
    files = package_copy(truths), results
    few = json.loads(results.read_text())
    many = [{**d, "score": round(d["score"] * (1 - 0.05 * (i % 9)), 2)} for i in range(40) for d in few]
    results.write_text(json.dumps(many))
    found, expected = evaluate_file(*files, "bbox").metrics(), official_metrics(*files, "bbox")
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-12), name


def test_more_masks_of_a_category_than_a_byte_counts(files):
    ground_truth, write = files
    many = [detection(image, 1, [0, 0, 40, 40], 0.5 + i / 1000) for image in (1, 2) for i in range(150)]
    masks = [{k: v for k, v in d.items() if k != "bbox"} for d in many]
    assert evaluate_file(ground_truth, write(masks), "segm").metrics()["AP50"] > 0


def test_several_processes_score_as_one(tmp_path):
    files = random_set(tmp_path, 4)
    one, two = evaluate_file(*files, "segm", workers=1), evaluate_file(*files, "segm", workers=2)
    assert one.metrics() == two.metrics() and one.thresholds() == two.thresholds()


def test_ap_fixed_has_no_limit_for_images_but_one_for_categories(files, monkeypatch):
    ground_truth, write = files
    clutter = [detection(1, 2, [i % 50, i % 40, 5, 5], 0.9) for i in range(320)]  # of a category known to be absent
    path = write([*clutter, detection(1, 1, [0, 0, 40, 40], 0.5), detection(1, 3, [5, 5, 50, 50], 0.4)])
    usual, fixed = evaluate_file(ground_truth, path, "bbox"), evaluate_file(ground_truth, path, "bbox", fixed=True)
    assert usual.metrics()["APr"] == 0 and fixed.metrics()["APr"] == pytest.approx(1.0)
    assert "AR@all" in fixed.metrics()
    monkeypatch.setattr("c2am_jax.evaluation.detection_rows.FIXED_PER_CATEGORY", 1)
    first = write([detection(1, 1, [60, 0, 9, 9], 0.9), detection(1, 1, [0, 0, 40, 40], 0.5)])
    assert evaluate_file(ground_truth, first, "bbox", fixed=True).metrics()["APf"] == 0


def test_a_subset_scores_as_a_json_of_its_images(tmp_path):
    truths, predictions = random_set(tmp_path, 4)
    content = json.loads(truths.read_text())
    for image in content["images"]:
        image["coco_url"] = f"http://x/{'val' if image['id'] % 3 else 'train'}2017/1.jpg"
    truths.write_text(json.dumps(content))
    chosen = chosen_images(truths, "minival")
    assert chosen == {image["id"] for image in content["images"] if image["id"] % 3} and images_in(truths, "train2017")
    small = tmp_path / "small.json"
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
    small.write_text(json.dumps(content))
    inside = tmp_path / "inside.json"
    inside.write_text(json.dumps([d for d in json.loads(predictions.read_text()) if d["image_id"] in chosen]))
    for kind in ("bbox", "segm"):
        found = evaluate_file(truths, predictions, kind, images=chosen)
        assert found.metrics() == evaluate_file(small, inside, kind).metrics()
    assert chosen_images(truths, "all") is None
    with pytest.raises(UserError, match="no image is of minival"):
        chosen_images(files_without_urls(truths), "minival")


def files_without_urls(truths):
    content = json.loads(truths.read_text())
    for image in content["images"]:
        del image["coco_url"]
    truths.write_text(json.dumps(content))
    return truths


def test_ap_pool_ranks_the_detections_of_all_categories_together(files):
    ground_truth, write = files
    detections = [
        detection(1, 3, [5, 5, 50, 50], 0.9),  # hit, rare
        detection(1, 2, [0, 0, 9, 9], 0.8),  # false: category 2 is known to be absent there
        detection(1, 1, [0, 0, 40, 40], 0.7),  # hit, frequent
        detection(2, 2, [0, 0, 20, 20], 0.6),  # hit, common
    ]
    found = evaluate_file(ground_truth, write(detections), "bbox", fixed=True).pooled()
    # 5 objects; hits at ranks 1, 3, 4: precision 1 up to recall 1/5, then 3/4 up to 3/5; on 101 recall points.
    assert found["APpool"] == pytest.approx((21 + 40 * 0.75) / 101)
    assert found["APpoolr"] == 1 and found["APpoolc"] == pytest.approx(0.5)
    assert found["APpoolf"] == pytest.approx(34 / 101)


def test_boundary_ap_is_stricter_than_mask_ap_and_one_for_exact_masks(files):
    ground_truth, write = files
    exact = [
        detection(1, 1, [0, 0, 40, 40], 0.9),
        detection(1, 1, [41, 0, 36, 40], 0.9),
        detection(2, 1, [10, 10, 40, 40], 0.9),
    ]
    assert evaluate_file(ground_truth, write(exact), "boundary").metrics()["APf"] == pytest.approx(1.0)
    shrunk = [
        detection(d["image_id"], 1, [d["bbox"][0] + 2, d["bbox"][1] + 2, *(v - 4 for v in d["bbox"][2:])], 0.9)
        for d in exact
    ]
    path = write(shrunk)
    mask, edge = (evaluate_file(ground_truth, path, kind).metrics()["APf"] for kind in ("segm", "boundary"))
    assert 0 <= edge < mask < 1


def test_the_boundary_is_the_mask_without_its_erosion():
    mask = np.zeros((100, 100), np.uint8, order="F")
    mask[0:60, 20:80] = 1
    edge = coco_mask.decode(boundary(coco_mask.encode(mask)))
    expected = mask.copy()
    expected[3:57, 23:77] = 0  # 2 % of the diagonal are 2.83, so 3 pixels; the image's border is a contour too
    np.testing.assert_array_equal(edge, expected)


def test_thresholds_tell_precision_and_recall_of_what_counts(files):
    ground_truth, write = files
    path = write(
        [
            detection(1, 1, [0, 0, 40, 40], 0.9),  # hit
            detection(1, 1, [0, 45, 30, 10], 0.6),  # false
            detection(2, 1, [60, 0, 20, 20], 0.95),  # incompletely annotated there: does not count
        ]
    )
    rows = {row["threshold"]: row for row in evaluate_file(ground_truth, path, "bbox").thresholds()}
    assert rows[0.7]["precision"] == 1 and rows[0.7]["recall"] == pytest.approx(1 / 5)
    assert rows[0.5]["precision"] == pytest.approx(0.5) and rows[0.95]["precision"] == 0


def test_groups_are_those_of_the_training_set(files):
    ground_truth, write = files
    predictions = write([detection(1, 3, [5, 5, 50, 50], 0.9)])
    training = [{"id": 10 + i, "name": str(i), "frequency": f, "image_count": 9} for i, f in enumerate("rrcc", 1)]
    own, theirs = (
        evaluate_file(ground_truth, predictions, "bbox", groups=groups) for groups in (None, category_table(training))
    )
    assert own.metrics()["APr"] > 0.99 and theirs.metrics()["APr"] == 0 and theirs.metrics()["APc"] > 0.99
    assert theirs.metrics()["APf"] == -1 and own.metrics()["AP"] == theirs.metrics()["AP"]
    assert [row["id"] for row in theirs.category_table()] == [1, 2, 3, 4]


def test_the_table_of_categories(files, tmp_path):
    ground_truth, write = files
    rows = evaluate_file(ground_truth, write([detection(1, 1, [0, 0, 40, 40], 0.9)]), "bbox").category_table()
    assert [row["ground_truths"] for row in rows] == [3, 1, 1, 0]
    assert rows[0]["frequency"] == "f" and rows[0]["AP50"] == pytest.approx(34 / 101) and rows[3]["AP"] == -1
    write_csv(tmp_path / "new" / "rows.csv", rows)
    with (tmp_path / "new" / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["AP"] == "" for row in read] == [False, False, False, True]  # a mean of the column is AP
    assert float(read[0]["AP50"]) == rows[0]["AP50"] and read[3]["ground_truths"] == "0"


CATEGORY = {"frequency": "f", "image_count": 1, "instance_count": 1}


def perfect(content):
    """Detections that are the annotations of a json."""
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: entry[key] for key in keys}, "score": 1.0} for entry in content["annotations"]]


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
        ('{"a": 1}', "bbox", "whose top level is a list"),
        ("[[1, 2]]", "bbox", "detection 0: not an object"),
        ('[{"image_id": 1', "bbox", "not a json file"),
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


@pytest.mark.parametrize(
    ("key", "where", "told"),
    [
        ("neg_category_ids", "images", None),
        ("not_exhaustive_category_ids", "images", None),
        (
            "frequency",
            "categories",
            "frequency of 1 category counted in this file; the training set's groups: --classes WORKDIR",
        ),
        ("area", "annotations", "completed for scoring: area of 1 annotation"),
    ],
)
def test_what_the_annotations_lack_is_completed_as_preparation_does(files, key, where, told):
    ground_truth, write = files
    predictions = write([detection(1, 1, [0, 0, 40, 40], 0.9)])
    before, lines = evaluate_file(ground_truth, predictions, "segm").metrics(), []
    content = json.loads(ground_truth.read_text())
    del content[where][0][key]
    ground_truth.write_text(json.dumps(content))
    after = evaluate_file(ground_truth, predictions, "segm", show=lines.append).metrics()
    assert after["AP"] == before["AP"]
    assert (told is None and not lines) or told in lines[0]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("area", "x", "area of 1 annotation"),
        ("area", float("nan"), "area of 1 annotation"),
        ("bbox", [0, 0, float("nan"), 4], "annotation unusable: 1, for example annotation 1 at byte"),
        ("image_id", None, "annotation 1 at byte"),
        ("image_id", "1", "image_id '1' is text; ids must be integers"),
        ("image_id", 2**63, "image_id 9223372036854775808 needs more than 64 bits"),
        ("image_id", 99, "annotation of an unknown image: 1"),
    ],
)
def test_a_faulty_annotation_is_left_out_or_completed_and_told(files, key, value, told):
    ground_truth, write = files
    content = json.loads(ground_truth.read_text())
    content["annotations"][0][key] = value
    ground_truth.write_text(json.dumps(content))
    lines = []
    evaluate_file(ground_truth, write([detection(1, 1, [0, 0, 40, 40], 0.9)]), "segm", show=lines.append)
    assert any(told in line for line in lines), lines


@pytest.mark.parametrize("mask", [[], None, [[0, 0, 9, 9]], [0, 0, 9, 0, 9, 9], rle([0, 0, 9, 9], (9, 9))])
def test_a_truth_without_a_usable_mask_counts_by_its_box_and_no_mask_matches_it(files, mask):
    ground_truth, write = files
    content = json.loads(ground_truth.read_text())
    predictions = write(perfect(content))
    assert [evaluate_file(ground_truth, predictions, kind).metrics()["AP"] for kind in ALL_IOU_TYPES] == [1, 1, 1]
    spoiled = content["annotations"][0]
    spoiled["segmentation"] = mask
    ground_truth.write_text(json.dumps(content))
    assert evaluate_file(ground_truth, predictions, "bbox").metrics()["AP"] == 1
    for kind in ("segm", "boundary"):
        scored = evaluate_file(ground_truth, predictions, kind)
        of_class = {row["id"]: row for row in scored.category_table()}[spoiled["category_id"]]
        assert of_class["AR"] < 1 and of_class["ground_truths"] > 0


def test_the_table_shows_per_cent_and_a_dash_for_what_cannot_count():
    metrics = dict.fromkeys(
        (f"bbox/{n}" for n in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")), 0.256
    )
    table = ap_table({**metrics, "bbox/AR@300": 0.5, "bbox/APr": -1.0})
    header, row = table.splitlines()
    assert header.split() == ["LVIS", "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300"]
    assert row.split() == ["bbox", *["25.6"] * 6, "-", "25.6", "25.6", "50.0"]


def test_results_of_other_pictures_under_the_same_ids_are_told(tmp_path):
    """`predict` writes file names; folders, suffixes, case and COCO's year do not make them other ones."""
    names = ["val/1.jpg", "COCO_val2014_000000000002.jpg", "sub\\c 3.PNG", ""]
    square = [[0, 0, 9, 0, 9, 9, 0, 9]]
    images = [{"id": i, "file_name": name, "height": 90, "width": 90} for i, name in enumerate(names, 1)]
    truth = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "segmentation": square}
    annotations, results = tmp_path / "val.json", tmp_path / "predictions.json"
    content = {"images": images, "annotations": [truth | {"iscrowd": 0}], "categories": [{"id": 1, "name": "a"}]}
    annotations.write_text(json.dumps(content))

    def told(*files):
        found = [detection(i, 1, [0, 0, 9, 9], 0.5) | {"file_name": file} for i, file in enumerate(files, 1)]
        results.write_text(json.dumps(found))
        shown = [], []
        evaluate_file(annotations, results, "bbox", show=shown[0].append)
        evaluate_coco_file(annotations, results, "bbox", show=shown[1].append)
        warnings = [[line for line in lines if line.startswith("warning: ")] for lines in shown]
        assert warnings[0] == warnings[1]
        return warnings[0]

    assert told("/data/1.jpg", "images/000000000002.jpg", "C 3.png", "any.jpg") == []
    assert told("train/001.jpg", "000000000002.jpg", "4.png", "any.jpg") == [
        f"warning: {results} has other file names than {annotations} for 2 images of 4, so its ids may mean other "
        "pictures: image 1 is train/001.jpg there, val/1.jpg here"
    ]
