"""Scanning annotation files of either layout, and what the evaluator gets of them."""

import json
import logging

import numpy as np
import pytest
from etils import epath
from layout import read_layout
from lvis import LVIS
from pycocotools.coco import COCO

from c2am_jax.data.evaluation_json import write_evaluation_json
from c2am_jax.data.lvis import AnnotationError, category_table
from c2am_jax.data.lvis_scan import scan
from c2am_jax.evaluation.coco_ap import evaluate_coco_file
from c2am_jax.evaluation.lvis_ap import evaluate_file


def test_annotations_are_found_again_by_image(tiny):
    content, write = tiny
    content["annotations"].reverse()
    path, _ = write()
    found = scan(path)
    assert found.complete and found.layout == "lvis" and found.additions == []
    assert [image.id for image in found.images] == [1, 2, 3, 4]
    np.testing.assert_array_equal(found.start, [0, 2, 3, 3, 4])
    np.testing.assert_array_equal(found.label, [0, 2, 1, 1])
    text = path.read_bytes()
    entries = [json.loads(text[o : o + n]) for o, n in zip(found.offset, found.length, strict=True)]
    assert [entry["id"] for entry in entries] == [2, 1, 3, 4]


@pytest.mark.parametrize("order", ["annotations images categories", "categories annotations images"])
def test_lists_may_stand_in_any_order(tiny, tmp_path, order):
    content, write = tiny
    whole = scan(write()[0])
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"licenses": [1], **{key: content[key] for key in order.split()}, "info": {}}))
    other = scan(path)
    np.testing.assert_array_equal(other.label, whole.label)
    assert other.images == whole.images and other.listed == whole.listed


def skip(content, what):
    """Spoil an entry of the tiny set that is then left out."""
    annotations, images = content["annotations"], content["images"]
    first = annotations[0]
    if what == "unknown category":
        first["category_id"] = 99
    elif what == "unknown image":
        first["image_id"] = 99
    elif what == "twice":
        annotations.append(dict(first))
    elif what == "no bbox":
        del first["bbox"]
    elif what == "infinite box":
        first["bbox"][2] = float("inf")
    elif what == "huge box":
        first["bbox"][2] = 10**400
    elif what == "id in a list":
        first["id"] = [1]
    elif what == "huge id":
        first["id"] = 2**70
    elif what == "text id":
        first["id"] = "1"
    elif what == "no object":
        annotations.append("x")
    elif what == "crowd":
        first["iscrowd"] = 1
    elif what == "no height":
        del images[2]["height"]
    elif what == "flat image":
        images[2]["height"] = 0
    elif what == "odd place":
        images[2]["coco_url"] = 7
    elif what == "image twice":
        images.append(images[2])


@pytest.mark.parametrize(
    ("what", "reason", "named"),
    [
        ("unknown category", "annotation of an unknown category", "annotation 1: category id 99 is not known"),
        ("unknown image", "annotation of an unknown image", "annotation 1: image id 99 is not in 'images'"),
        ("twice", "annotation id used twice", "annotation 1: again at byte "),
        ("no bbox", "annotation unusable", "annotation 1 at byte "),
        ("infinite box", "annotation unusable", "non-finite"),
        ("huge box", "annotation unusable", "non-finite"),
        ("id in a list", "annotation unusable", "annotation [1] at byte "),
        ("huge id", "annotation unusable", "id 1180591620717411303424 needs more than 64 bits"),
        ("text id", "annotation unusable", "id '1' is text; ids must be integers"),
        ("no object", "annotation unusable", "no object with id, image_id, category_id and bbox"),
        ("crowd", "crowd region, evaluation ignores it", "annotation 1 of image 1"),
        ("no height", "image entry unusable", "image 3 at byte "),
        ("flat image", "image entry unusable", "height 0 is no positive integer"),
        ("odd place", "image entry unusable", "coco_url 7 is no text"),
        ("image twice", "image listed twice", "image 3 at byte "),
    ],
)
def test_what_cannot_be_used_is_counted_named_and_kept_from_the_evaluator(tiny, tmp_path, what, reason, named):
    content, write = tiny
    skip(content, what)
    found = scan(write()[0])
    assert found.skipped.counts == {reason: 1}
    assert named in found.skipped.entries[reason][0]
    assert len(found.label) == 4 - ("annotation" in reason and what not in ("twice", "no object") or what == "crowd")
    assert len(found.images) == 4 - (reason == "image entry unusable")
    write_evaluation_json(found, epath.Path(tmp_path / "evaluation.json"))
    images, by_image, _ = read_layout(tmp_path / "evaluation.json")  # which refuses every one of these faults
    assert len(images) == len(found.images)
    assert sum(map(len, by_image.values())) == len(found.label) + (what == "crowd")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda c: c.pop("images"), "no list 'images'"),
        (lambda c: c.update(annotations={}), "no list 'annotations'"),
        (lambda c: c.update(categories=[]), "the list 'categories' is empty"),
        (lambda c: c["categories"][0].pop("id"), "no integer id"),
        (lambda c: c["categories"].append(None), "no object with id and name"),
        (lambda c: c["categories"][0].update(id=5), "id 5 stands for two categories"),
        (lambda c: c["categories"][0].update(frequency="x"), "frequency 'x' is not r, c or f"),
        (lambda c: c["categories"][0].update(image_count=-1), "image_count -1 is no count"),
        (lambda c: c["categories"][0].update(name=7), "its name 7 is no text"),
        (lambda c: c["images"][0].update(id=2), "id 2 stands for two different images"),
    ],
)
def test_files_of_which_nothing_can_be_told_for_sure_are_refused(tiny, spoil, named):
    content, write = tiny
    spoil(content)
    path, _ = write()
    with pytest.raises(AnnotationError) as error:
        scan(path)
    assert str(error.value).startswith(str(path)) and named in str(error.value)


def test_missing_and_cut_files_are_named(tiny, tmp_path):
    with pytest.raises(AnnotationError, match="none.json: no such file"):
        scan(tmp_path / "none.json")
    with pytest.raises(AnnotationError, match=f"{tmp_path.name}: cannot be read"):
        scan(tmp_path)
    path, _ = tiny[1]()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(AnnotationError, match="annotations.json: not a json file .*ends"):
        scan(path)


def test_frequencies_and_counts_that_are_absent_are_counted(tiny):
    content, write = tiny
    for category in content["categories"]:
        for key in ("frequency", "image_count", "instance_count"):
            del category[key]
    content["annotations"].append({**content["annotations"][2], "id": 9})  # a second of category 5 in image 2
    found = scan(write()[0])
    np.testing.assert_array_equal(found.categories.image_count, [1, 2, 1])
    np.testing.assert_array_equal(found.categories.instance_count, [1, 3, 1])
    assert found.categories.frequency == ("r", "r", "r")
    assert sorted(found.additions) == [f"{k} of 3 categories" for k in ("frequency", "image_count", "instance_count")]


def test_a_frequency_follows_from_a_count_that_is_there(tiny):
    content, write = tiny
    for category, count in zip(content["categories"], (10, 100, 101), strict=True):
        del category["frequency"]
        category["image_count"] = count
    assert scan(write()[0]).categories.frequency == ("r", "f", "c")


def test_groups_of_a_validation_file_are_those_of_training(tiny, tmp_path):
    content, write = tiny
    training = tmp_path / "train.json"
    training.write_text(write()[0].read_text())
    told = {key: content["categories"][0].pop(key) for key in ("frequency", "image_count")}
    content["categories"][1]["image_count"] = 77
    content["categories"].append({"id": 9, "name": "not in training"})
    path, _ = write()
    assert told == {"frequency": "r", "image_count": 1}
    rows = {row["id"]: row for row in scan(path, training=training).categories.as_dicts()}
    assert (rows[2]["frequency"], rows[2]["image_count"]) == ("r", 1)
    assert (rows[7]["frequency"], rows[7]["image_count"]) == ("c", 77)  # what the file tells stays
    assert (rows[9]["frequency"], rows[9]["image_count"], rows[9]["name"]) == ("r", 0, "not in training")
    for category in content["categories"]:
        category["frequency"] = "f"
    write()
    training.unlink()  # read only where it is needed
    assert scan(path, training=training).categories.frequency == ("f", "f", "f", "f")


def test_categories_without_annotations_are_rare(tiny):
    content, write = tiny
    content["annotations"] = []
    content["categories"] = [{"id": 3}]
    found = scan(write()[0])
    assert found.categories.names == ("3",) and found.categories.frequency == ("r",)


def test_the_coco_layout_becomes_one_that_both_evaluators_read(shared, tmp_path, capsys):
    source = shared / "data" / "cocoapi_val2014_100" / "instances_val2014_100.json"
    content = json.loads(source.read_text())
    crowds = [a for a in content["annotations"] if a["iscrowd"]]
    found = scan(source)
    assert found.layout == "coco" and found.listed == {"images": 100, "annotations": 839, "categories": 80}
    assert found.skipped.counts == {"crowd region, evaluation ignores it": len(crowds)} and len(crowds) == 9
    assert len(found.label) == 830 and not found.complete
    path = tmp_path / "evaluation.json"
    write_evaluation_json(found, epath.Path(path))
    lvis = LVIS(str(path))
    capsys.readouterr()
    coco = COCO(str(path))
    assert capsys.readouterr().out  # COCO's own words
    assert set(coco.anns) == set(lvis.anns) == {a["id"] for a in content["annotations"]}
    for annotation in content["annotations"]:
        kept = lvis.anns[annotation["id"]]
        assert kept == {**annotation, **({"ignore": 1} if annotation["iscrowd"] else {})}
    for image in lvis.imgs.values():
        present = {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
        assert set(image["neg_category_ids"]) == set(lvis.cats) - present
        crowded = {a["category_id"] for a in crowds if a["image_id"] == image["id"]}
        assert image["not_exhaustive_category_ids"] == sorted(crowded)
    for k, category in enumerate(lvis.cats[i] for i in found.categories.ids):
        own = [a for a in content["annotations"] if a["category_id"] == category["id"] and not a["iscrowd"]]
        assert category["instance_count"] == len(own) == found.categories.instance_count[k]
        assert category["image_count"] == len({a["image_id"] for a in own})
        assert category["frequency"] == ("r" if category["image_count"] <= 10 else "c")
        assert category["supercategory"]


def test_a_complete_file_is_copied_as_it_is(shared, tmp_path):
    source = shared / "data" / "lvis_api" / "lvis_val_100.json"
    found = scan(source)
    assert found.complete and found.layout == "lvis" and found.skipped.counts == {}
    write_evaluation_json(found, epath.Path(tmp_path / "evaluation.json"))
    assert (tmp_path / "evaluation.json").read_bytes() == source.read_bytes()
    whole = category_table(json.loads(source.read_text())["categories"])
    for name in ("ids", "names", "frequency", "image_count", "instance_count"):
        np.testing.assert_array_equal(getattr(found.categories, name), getattr(whole, name))


def test_a_file_that_is_wrong_throughout_lists_only_some(tiny, monkeypatch):
    from c2am_jax.data import lvis_scan, skipped

    monkeypatch.setattr(lvis_scan, "LISTED", 10)
    monkeypatch.setattr(skipped, "LISTED", 10)
    content, write = tiny
    content["annotations"] = [{**content["annotations"][0], "id": i, "category_id": 99} for i in range(50)]
    content["annotations"] += [{"id": i} for i in range(50, 90)]
    found = scan(write()[0])
    assert found.skipped.counts == {"annotation unusable": 40, "annotation of an unknown category": 50}
    assert [len(names) for names in found.skipped.entries.values()] == [10, 10]


def test_an_evaluation_file_of_which_nothing_is_left_is_still_one(tiny, tmp_path):
    content, write = tiny
    content["annotations"] = [{"id": 1}]
    found = scan(write()[0])
    write_evaluation_json(found, epath.Path(tmp_path / "evaluation.json"))
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert kept["annotations"] == [] and len(kept["images"]) == 4 and len(category_table(kept["categories"])) == 3


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def test_memory_does_not_grow_with_the_polygons(tiny, monkeypatch):
    import tracemalloc

    from c2am_jax.data import json_stream

    monkeypatch.setattr(json_stream, "BLOCK", 1 << 14)
    content, write = tiny
    polygon = [float(value) for value in range(400)]
    first = {**content["annotations"][0], "segmentation": [polygon]}
    content["annotations"] = [{**first, "id": number} for number in range(1000)]
    path, _ = write()
    assert path.stat().st_size > 2_600_000
    tracemalloc.start()
    try:
        found = scan(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.label) == 1000 and peak < 700_000


def test_coco_ap_of_the_completed_file_is_that_of_the_original(shared, tmp_path, capsys):
    from pycocotools.cocoeval import COCOeval

    folder = shared / "data" / "cocoapi_val2014_100"
    write_evaluation_json(scan(folder / "instances_val2014_100.json"), epath.Path(tmp_path / "evaluation.json"))
    stats = []
    for path in (folder / "instances_val2014_100.json", tmp_path / "evaluation.json"):
        truth = COCO(str(path))
        protocol = COCOeval(truth, truth.loadRes(str(folder / "instances_val2014_fakebbox100_results.json")), "bbox")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
        stats.append(protocol.stats)
    capsys.readouterr()
    np.testing.assert_array_equal(*stats)
    assert round(stats[0][0], 3) == 0.505


def uncounted(content, what):
    for entry in content["annotations"]:
        entry |= {"crowds": {"iscrowd": 1}, "ignored": {"ignore": 1}, "flat": {"area": 0}}.get(what, {})
    if what == "empty":
        content["annotations"] = []


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("crowds", "left out: 4 x crowd region, evaluation ignores it, for example annotation 1 of image 1"),
        ("ignored", "scoring ignores its 4 annotations: 'ignore' is set, or the area is 0"),
        ("flat", "scoring ignores its 4 annotations: 'ignore' is set, or the area is 0"),
        ("empty", "the list 'annotations' is empty"),
        ("", None),
    ],
)
def test_a_file_that_scores_nothing_says_why_and_then_no_number_counts(tiny, tmp_path, what, why):
    content, write = tiny
    uncounted(content, what)
    path, _ = write()
    told = f"no object to score in {path}: {why}" if why else ""
    assert scan(path).nothing_to_score == told
    results, shown = tmp_path / "r.json", []
    results.write_text(json.dumps([{"image_id": 1, "category_id": 7, "score": 0.9, "bbox": [4, 6, 20, 16]}]))
    found = evaluate_file(path, results, "bbox", show=shown.append).metrics()
    assert (f"warning: {told}" in shown) == bool(why) == (found["AP"] == -1)
    evaluate_coco_file(path, results, "bbox", show=shown.append)
    assert shown.count(f"warning: {told}") == (2 if why else 0)
