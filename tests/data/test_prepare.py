"""The command that prepares a data set."""

import html
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from c2am_jax.browse.command import main as browse
from c2am_jax.data import prepare, prepared, published
from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.settings import DataSettings


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def options_of(annotations, images, out, name="t"):
    return ["--annotations", str(annotations), "--images", str(images), "--name", name, "--out", str(out)]


def test_the_command_reports_and_names_wrong_input(tiny, tmp_path, capsys):
    options = options_of(*tiny[1](), tmp_path / "d")
    assert prepare.main(options) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("t: 4 images, 4 instances (lvis layout)")  # nothing of TFDS's own
    assert (
        "without annotations, for evaluation only: 1 image\n" in printed and "1 rare, 1 common, 1 frequent" in printed
    )
    assert "instances: 1 rare, 1 common, 2 frequent" in printed
    options[1] = str(tmp_path / "none.json")
    assert prepare.main(options) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_command_prints_what_was_skipped(tiny, tmp_path, capsys):
    content, write = tiny
    content["annotations"][0]["category_id"] = 99
    content["annotations"][1]["iscrowd"] = 1
    content["images"][2]["coco_url"] = "http://images.cocodataset.org/../7.jpg"
    assert prepare.main(options_of(*write(), tmp_path / "d")) == 0
    printed = capsys.readouterr().out
    for line in (
        "skipped, annotation of an unknown category: 1",
        "skipped, crowd region, evaluation ignores it: 1",
        "skipped, image file missing: 1",
        "added for evaluation: not_exhaustive_category_ids and ignore of 1 crowd region",
    ):
        assert line in printed


def test_each_fault_is_told_once_with_an_example(tiny, tmp_path):
    content, write = tiny
    content["annotations"][0]["category_id"] = 99
    content["annotations"][1]["bbox"] = [40.0, 30.0, 40.0, 10.0]  # outside, and beside its mask
    options = options_of(*write(), tmp_path / "d")
    done = subprocess.run(
        [sys.executable, "-m", "c2am_jax.data.prepare", *options],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    faults = [line for line in done.stdout.splitlines() if line.startswith(("skipped", "kept", "suspicious"))]
    assert faults == [
        "skipped, annotation of an unknown category: 1, for example annotation 1: category id 99 is not known",
        "kept, mask beside its box: 1, for example annotation 2 of image 1",
        "suspicious: 1 of 3 boxes reaches outside its picture: it is cut off at its border",
    ]
    assert done.stderr == ""


def test_names_that_are_missing_or_there_twice_are_told_with_the_file_and_the_ids(tiny, tmp_path, capsys, caplog):
    content, write = tiny
    del content["categories"][1]["name"]
    content["categories"][0]["name"] = "category 5"
    annotations, images = write()
    lines = [
        f"1 category of {annotations} has no name; its id is used",
        f"{annotations}: categories go by name, but more than one is called 'category 5' (ids 2, 5); rename them",
    ]
    assert prepare.main(options_of(annotations, images, tmp_path / "d", "t_train")) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if str(annotations) in line] == lines
    assert browse([str(annotations), f"--images={images}", f"--out={tmp_path / 'page.html'}"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("suspect: ")] == [
        f"suspect: {line}" for line in lines
    ]
    page = html.unescape((tmp_path / "page.html").read_text())
    assert all(f'<p class="bad">{line}</p>' in page for line in lines) and "othing looks wrong" not in said + page
    data = DataSettings("t", str(tmp_path / "d"), str(annotations), str(images))
    caplog.set_level(logging.WARNING)
    assert len(open_dataset(data, "train")) == 4  # as training does: prepared already, and told again
    assert caplog.messages == [f"t_train: {line}" for line in lines]


def test_a_published_set_is_found_in_its_standard_place_and_checked(tiny, tmp_path, capsys, monkeypatch):
    annotations, images = tiny[1]()
    home = tmp_path / "d" / "lvis_v1"
    shutil.copytree(images, home / "images")
    shutil.copy(annotations, home / "lvis_v1_train.json")
    assert prepare.main(["lvis_v1", "--out", str(tmp_path / "d")]) == 2
    assert "lvis_v1_val.json" in capsys.readouterr().err
    assert not prepared.is_prepared("lvis_v1_train", tmp_path / "d")  # all must be there before the first begins
    assert prepare.main(["lvis_v1", "--split", "train", "--out", str(tmp_path / "d")]) == 0
    printed = capsys.readouterr().out
    assert "NOT the published lvis_v1_train: images: 4 in the file, 100,170 published" in printed
    tiny_counts = {"images": 4, "annotations": 4, "categories": 3, "rare": 1, "images_with_annotations": 3}
    monkeypatch.setitem(published.PUBLISHED, "lvis_v1_train", tiny_counts)
    assert prepare.main(["lvis_v1", "--split", "train", "--out", str(tmp_path / "d")]) == 0
    assert "the file's counts are those of the published lvis_v1_train" in capsys.readouterr().out


def test_published_counts_are_those_of_the_tables(shared):
    for name, table in (("lvis_v1_train", "v1"), ("lvis_v05_train", "v0.5")):
        rows = json.loads((shared / "data" / "lvis_tables" / f"lvis_{table}_train_cat_info.json").read_text())
        groups = [row["frequency"] for row in rows]
        counts = {
            "categories": len(rows),
            "annotations": sum(row["instance_count"] for row in rows),
            **{word: groups.count(word[0]) for word in ("rare", "common", "frequent")},
        }
        assert {key: published.PUBLISHED[name][key] for key in counts} == counts


@pytest.mark.parametrize(
    "arguments", [[], ["--annotations", "a.json"], ["lvis_v1", "--annotations", "a.json"], ["--workers", "0"]]
)
def test_incomplete_options_are_a_usage_error(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare.main([*arguments, "--out", str(tmp_path)])
    assert ended.value.code == 2 and "error" in capsys.readouterr().err


def test_masks_that_lie_beside_their_box_are_kept_and_told(tiny, tmp_path, capsys):
    content, write = tiny
    content["annotations"][0]["bbox"] = [40.0, 30.0, 10.0, 10.0]
    assert prepare.main(options_of(*write(), tmp_path / "d")) == 0
    assert "kept, mask beside its box: 1" in capsys.readouterr().out
    assert len(prepared.load("t", tmp_path / "d").label) == 4


def test_a_set_of_another_json_is_replaced_only_on_request(tiny, tmp_path, capsys, monkeypatch):
    content, write = tiny
    annotations, images = write()
    monkeypatch.chdir(tmp_path)
    options = options_of("annotations.json", images, "d")  # relative: the report names the file from every folder
    assert prepare.main(options) == 0
    folder = prepared.folder_of("t", "d")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content | {"annotations": content["annotations"][:2]}))
    capsys.readouterr()
    assert prepare.main(options_of(other, images, "d")) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"error: {folder} was prepared from {annotations}, not from {other}: take another --name, or give --replace to "
        "lose that set\n"
    )
    assert said.out == "" and len(prepared.load("t", "d", annotations=annotations).label) == 4
    assert prepare.main([*options_of(other, images, "d"), "--replace"]) == 0
    assert len(prepared.load("t", "d", annotations=other).label) == 2


def test_the_same_json_is_prepared_again_also_edited_in_its_place_or_moved(tiny, tmp_path, capsys):
    content, write = tiny
    annotations, images = write()
    assert prepare.main(options_of(annotations, images, tmp_path / "d")) == 0
    assert prepare.main([*options_of(annotations, images, tmp_path / "d"), "--workers", "1"]) == 0
    moved = annotations.rename(tmp_path / "moved.json")
    assert prepare.main(options_of(moved, images, tmp_path / "d")) == 0
    content["annotations"].pop()
    moved.write_text(json.dumps(content))
    assert prepare.main(options_of(moved, images, tmp_path / "d")) == 0
    assert len(prepared.load("t", tmp_path / "d", annotations=moved).label) == 3


def changed(content, what):
    """The json with a change after which nothing can train."""
    for annotation in content["annotations"]:
        if what == "no masks":
            del annotation["segmentation"]
        elif what == "no boxes":
            del annotation["bbox"]
        elif what == "broken masks":
            annotation["segmentation"] = [[1.0, 2.0, 3.0, 4.0]]
        elif what == "crowds":
            annotation["iscrowd"] = 1
    if what == "no annotations":
        content["annotations"] = []
    if what in ("no categories", "no images"):
        content[what.split()[1]] = []


NOTHING = {
    "no masks": "no object to train on: none of its annotations (4) has a mask; the detector trains on masks: give",
    "no boxes": "no object to train on: left out: 4 x annotation unusable, for example annotation 1 at byte ",
    "broken masks": "has an annotation to train on; left out: 4 x mask unusable, for example annotation 1 of image 1: ",
    "crowds": "no object to train on: left out: 4 x crowd region, evaluation ignores it, for example annotation 1 of",
    "no annotations": "no object to train on: the list 'annotations' is empty",
    "no categories": "the list 'categories' is empty",
    "no images": "the list 'images' is empty",
    "no pictures": "not one of its images is usable in ",
}


@pytest.mark.parametrize("what", NOTHING)
def test_a_json_that_nothing_can_train_on_is_one_error_and_leaves_no_set(tiny, tmp_path, capsys, what):
    content, write = tiny
    changed(content, what)
    annotations, images = write()
    if what == "no pictures":
        shutil.rmtree(images / "train2017")
    assert prepare.main(options_of(annotations, images, tmp_path / "d", "t_train")) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {annotations}: ") and NOTHING[what] in said.err and said.out == ""
    assert len(said.err.splitlines()) == 1 and not prepared.folder_of("t_train", tmp_path / "d").exists()


def test_boxes_without_masks_are_prepared_for_evaluation(tiny, tmp_path, capsys):
    content, write = tiny
    changed(content, "no masks")
    assert prepare.main(options_of(*write(), tmp_path / "d", "t_val")) == 0
    assert "skipped, annotation without a mask: 4" in capsys.readouterr().out


def test_pictures_that_are_too_small_to_train_are_told(tiny, tmp_path, capsys):
    content, write = tiny
    for image in content["images"]:
        image.update(width=24, height=24)
        Image.new("RGB", (24, 24)).save(tmp_path / "images" / "train2017" / f"{image['id']:012d}.jpg")
    annotations, images = write()
    assert prepare.main(options_of(annotations, images, tmp_path / "d", "t_train")) == 2
    assert f"error: {annotations}: no image is 32 pixels wide and high and has" in capsys.readouterr().err
