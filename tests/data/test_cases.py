"""Data as people have it: what preparation and scoring make of each of `cases`, ours and those that were sent in."""

import json

import numpy as np
import pytest
from cases import write_cases

from c2am_jax.data import builder, prepared
from c2am_jax.data.class_names import read_categories
from c2am_jax.data.records import parse_record
from c2am_jax.errors import UserError
from c2am_jax.evaluation.coco_ap import evaluate_coco_file
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.result_classes import ResultClasses


@pytest.fixture(scope="module", params=["ours", "sent in"])
def cases(request, tmp_path_factory):
    if request.param == "sent in":
        return request.getfixturevalue("shared") / "cases"
    folder = tmp_path_factory.mktemp("cases")
    write_cases(folder)
    return folder


def prepare(cases, name, tmp_path, images="base/images"):
    """The report and the data set."""
    report = builder.prepare(cases / name, cases / images, "N_val", tmp_path / "data", workers=1)
    return report, prepared.load("N_val", tmp_path / "data")


def scores(cases, truth, predictions, tmp_path, kind="bbox"):
    """AP of the file itself and of its prepared copy, by LVIS's rules and by COCO's, in per cent."""
    _, dataset = prepare(cases, truth, tmp_path)
    found = []
    for annotations in (cases / truth, dataset.annotations_path):
        found.append(evaluate_file(annotations, cases / predictions, kind).metrics()["AP"])
        found.append(evaluate_coco_file(annotations, cases / predictions, kind)["AP"])
    return [100 * ap for ap in found]


ALL = pytest.approx([100] * 4, abs=1e-6)


@pytest.mark.parametrize("name", ["truth_runs_short_by_one", "truth_string_cut"])
def test_truths_whose_run_lengths_are_wrong_match_no_mask_and_their_boxes_count(cases, name, tmp_path):
    report, _ = prepare(cases, f"rle/{name}.json", tmp_path)
    wrong = report["skipped"]["mask unusable"]
    assert wrong == (1 if name == "truth_runs_short_by_one" else 8)
    assert scores(cases, f"rle/{name}.json", "box_only/dt.json", tmp_path) == ALL
    masks = scores(cases, f"rle/{name}.json", "rle/results_good.json", tmp_path, "segm")
    assert all(ap < 100 for ap in masks) and (wrong == 1 or masks == [0, 0, 0, 0])


def test_right_masks_score_100(cases, tmp_path):
    assert scores(cases, "base/val.json", "rle/results_good.json", tmp_path, "segm") == ALL


@pytest.mark.parametrize("evaluate", [evaluate_file, evaluate_coco_file])
@pytest.mark.parametrize(
    ("name", "why"), [("results_str_of_bytes", "decode them"), ("results_of_larger_image", "do not sum to the 12288")]
)
def test_results_whose_masks_are_wrong_are_one_line_that_names_the_detection(cases, evaluate, name, why):
    with pytest.raises(UserError, match=rf"{name}.json: detection 0: RLE .*{why}"):
        evaluate(cases / "base/val.json", cases / f"rle/{name}.json", "segm")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "annotation without a mask"),
        ("no_segmentation_key", "annotation without a mask"),
        ("two_points", "mask unusable"),
    ],
)
def test_one_unusable_mask_is_counted_and_is_a_missed_truth_for_masks_alone(cases, name, reason, tmp_path):
    report, _ = prepare(cases, f"polygons/{name}.json", tmp_path)
    if name != "no_segmentation_key" or report["skipped"][reason] == 1:
        assert report["skipped"][reason] == 1
    assert scores(cases, f"polygons/{name}.json", "polygons/results.json", tmp_path) == ALL
    assert all(ap < 100 for ap in scores(cases, f"polygons/{name}.json", "polygons/results.json", tmp_path, "segm"))


def test_a_short_part_beside_a_good_polygon_is_dropped(cases, tmp_path):
    name = "polygons/good_part_and_two_point_part.json"
    assert scores(cases, name, "polygons/results.json", tmp_path, "segm") == ALL
    assert prepare(cases, name, tmp_path)[0]["skipped"] == {}


@pytest.mark.parametrize("name", ["empty", "nokey"])
def test_boxes_without_any_mask_score_as_boxes(cases, name, tmp_path):
    report, _ = prepare(cases, f"box_only/{name}.json", tmp_path)
    assert report["skipped"] == {"annotation without a mask": 8}
    assert scores(cases, f"box_only/{name}.json", "box_only/dt.json", tmp_path) == ALL


def test_an_area_that_is_missing_is_added_and_counted(cases, tmp_path):
    report, dataset = prepare(cases, "area_missing/val.json", tmp_path)
    assert "area of 8 annotations, where it is missing or no number" in report["added_for_evaluation"]
    assert scores(cases, "area_missing/val.json", "area_missing/results.json", tmp_path) == ALL
    areas = [a["area"] for a in json.loads(dataset.annotations_path.read_text())["annotations"]]
    truths = json.loads((cases / "base/val.json").read_text())["annotations"]
    assert areas == [a["bbox"][2] * a["bbox"][3] for a in truths]
    masks = [{k: v for k, v in entry.items()} for entry in json.loads((cases / "rle/results_good.json").read_text())]
    (tmp_path / "masks.json").write_text(json.dumps(masks))
    assert scores(cases, "area_missing/val.json", tmp_path / "masks.json", tmp_path, "segm") == ALL


def test_classes_go_by_name(cases):
    classes = ResultClasses(read_categories(cases / "base/val.json"), "base")
    found = cases / "categories_renumbered/results_of_a_perfect_detector.json"
    for evaluate in (evaluate_file, evaluate_coco_file):
        scored = evaluate(cases / "categories_renumbered/val.json", found, "bbox", classes=classes)
        assert (scored if isinstance(scored, dict) else scored.metrics())["AP"] == pytest.approx(1)


def test_turned_pictures_are_upright_and_counted(cases, tmp_path):
    report, dataset = prepare(cases, "exif/train.json", tmp_path, "exif/images")
    assert report["skipped"] == {} and report["noted"] == {"picture turned as its EXIF orientation says": 2}
    for i in range(3):
        pixels, _, (boxes, _, _) = parse_record(dataset.read(i))
        left, top, right, bottom = boxes[0].numpy().astype(int)
        inside = pixels.numpy()[top + 4 : bottom - 4, left + 4 : right - 4].reshape(-1, 3).mean(0)
        assert pixels.shape[:2] == (96, 128) and inside[0] > 180 and inside[1:].max() < 80, inside


def test_a_picture_that_only_as_stored_has_the_jsons_size_stays_so(cases, tmp_path):
    content = json.loads((cases / "exif/train.json").read_text())
    for image in content["images"]:
        if image["file_name"] == "o6.jpg":
            image["height"], image["width"] = image["width"], image["height"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    report = builder.prepare(tmp_path / "a.json", cases / "exif/images", "N_val", tmp_path / "data", workers=1)
    told = "picture not turned as its EXIF orientation says: only as stored it has the json's size"
    assert report["noted"][told] == 1 and report["images"] == 3


def test_ids_of_64_bits_are_exact_and_larger_ones_refused_in_a_line(cases, tmp_path):
    assert scores(cases, "large_ids/val.json", "large_ids/results.json", tmp_path) == ALL
    for run in (
        lambda: prepare(cases, "large_ids/val_uint64.json", tmp_path / "other"),
        lambda: evaluate_file(cases / "large_ids/val_uint64.json", cases / "large_ids/results.json", "bbox"),
    ):
        with pytest.raises(UserError, match=r"val_uint64.json: .*id 92233720368547758\d\d needs more than 64 bits"):
            run()


def test_two_ids_with_one_file_are_counted_and_named(cases, tmp_path):
    report, _ = prepare(cases, "same_name/same.json", tmp_path)
    count = report["noted"]["two image ids with one file"]
    assert count >= 1 and "images 1 and " in report["noted_entries"]["two image ids with one file"][0]


def test_annotation_id_0_has_another_id_in_the_prepared_copy_and_a_word_without(cases, tmp_path):
    truth, predictions = cases / "annotation_id_0/val.json", cases / "annotation_id_0/results.json"
    report, dataset = prepare(cases, "annotation_id_0/val.json", tmp_path)
    assert any("another id for annotation 0" in what for what in report["added_for_evaluation"])
    assert evaluate_file(dataset.annotations_path, predictions, "bbox").metrics()["AP"] == pytest.approx(1)
    lines = []
    raw = evaluate_file(truth, predictions, "bbox", show=lines.append).metrics()["AP"]
    assert raw < 0.9 and any("ignores a match with annotation id 0" in line for line in lines)
    ids = [a["id"] for a in json.loads(dataset.annotations_path.read_text())["annotations"]]
    assert len(set(ids)) == 8 and 0 not in ids


def test_backslashes_separate_folders(cases, tmp_path):
    assert prepare(cases, "backslash_names/val.json", tmp_path)[0]["images"] == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("string_ids", "image '1' .*id '1' is text; ids must be integers"),
        ("float_sizes", "image 1 .*height 96.0 is no positive"),
    ],
)
def test_the_first_reason_is_told_of_a_file_without_one_usable_image(cases, name, why, tmp_path):
    for run in (
        lambda: prepare(cases, f"odd_types/{name}.json", tmp_path),
        lambda: evaluate_file(cases / f"odd_types/{name}.json", cases / "box_only/dt.json", "bbox"),
    ):
        with pytest.raises(UserError, match=rf"{name}.json: none of its 4 images is usable; the first: {why}"):
            run()


def test_text_ids_of_results_are_named(cases):
    for evaluate in (evaluate_file, evaluate_coco_file):
        with pytest.raises(UserError, match="detection 0: image_id '1' is text; ids must be integers"):
            evaluate(cases / "base/val.json", cases / "odd_types/results_string_ids.json", "bbox")


def test_a_set_of_crowds_alone_is_refused_for_training_by_that_name(cases, tmp_path):
    from c2am_jax.data.sampler import Sampler

    _, dataset = prepare(cases, "all_crowd/train.json", tmp_path)
    with pytest.raises(UserError, match="crowd"):
        Sampler(dataset, "random")
    assert not np.diff(dataset.label_offset).any()
