"""The built-in set with LVIS's classes and counts: its plan, its bytes, and its way through the commands."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from layout import read_layout
from tiny import TINY

from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.glyph_plan import ABSENT, FLAGGED, PRESENT
from c2am_jax.data.glyphs_lvis import (
    SMALL,
    LvisGlyphSettings,
    characters,
    faces_of,
    families,
    generate,
    groups,
    lvis_counts,
    planned_images,
    training_counts,
)
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FULL = LvisGlyphSettings()
LETTERS = groups()
RECORDS = "60fe61c0f74f3b4b6adc9123979147499b9340a79de2b218bf3b9779491f98db"


def digest(folder):
    """Of the training part: its json, and the names and bytes of its pictures."""
    found = hashlib.sha256((folder / "annotations_train.json").read_bytes())
    for file in sorted((folder / "images/train").iterdir()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def command(*arguments, status=0):
    given = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    given |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    line = [sys.executable, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, env=given, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def full():
    """The planned training images of the full set."""
    return planned_images(FULL, "train")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A `config.data.dir` in which the small set was asked for."""
    place = tmp_path_factory.mktemp("lvis")
    open_dataset(DataSettings("glyphs_lvis_small", str(place)), "val")
    return place


@pytest.fixture(scope="module")
def folder(data):
    """The small set."""
    return data / "glyphs_lvis_small"


def test_counts_are_lvis_and_so_are_the_groups(shared):
    published = json.loads((shared / "data/lvis_tables/lvis_v1_train_cat_info.json").read_text())
    assert lvis_counts().tolist() == [category["image_count"] for category in published]
    assert LETTERS.tolist() == [category["frequency"] for category in published]


def test_groups_have_lvis_sizes():
    assert [(LETTERS == letter).sum() for letter in "rcf"] == [337, 461, 405]
    assert len(lvis_counts()) == 1203 and lvis_counts().sum() == 360_952


def test_training_images_of_a_class_are_lvis_number_up_to_the_cap(full):
    annotated = np.zeros(1203, int)
    for image in full:
        assert len(image.annotated) + len(image.untold) <= FULL.objects
        assert len({*image.annotated}) == image.positives and {*image.annotated[: image.positives]} == {
            *image.annotated
        }
        annotated[image.annotated[: image.positives]] += 1
    assert len(full) == 20_000 and FULL.cap == 200
    np.testing.assert_array_equal(annotated, np.minimum(lvis_counts(), 200))
    np.testing.assert_array_equal(annotated, training_counts(FULL))
    assert (annotated[LETTERS == "f"] > 100).all()  # the groups that the counts say are LVIS's


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_federated_at_lvis_rates(full, split):
    images = full if split == "train" else planned_images(FULL, "val")
    present, absent, flagged = (dict.fromkeys("rcf", 0) for _ in range(3))
    unsaid = 0
    for image in images:
        here, told = {*image.annotated, *image.untold}, {*image.annotated}
        assert not here & {*image.negatives} and len({*image.negatives}) == len(image.negatives)
        assert {*image.not_exhaustive} == {*image.untold} & told
        unsaid += len({*image.untold} - told)
        for count, classes in ((present, told), (absent, image.negatives), (flagged, image.not_exhaustive)):
            for k in classes:
                count[LETTERS[k]] += 1
    for letter, tolerance in (("r", 0), ("c", 0.02), ("f", 0.05)):
        rate = ABSENT[letter] / PRESENT[letter]
        assert absent[letter] / present[letter] == pytest.approx(rate, rel=tolerance), letter
    for letter in "cf":  # flagged pairs of full images have no room for objects without annotation
        drawn = flagged[letter] / present[letter]
        assert 0.6 * FLAGGED[letter] / PRESENT[letter] < drawn < 1.3 * FLAGGED[letter] / PRESENT[letter], letter
    assert flagged["r"] == 0 and unsaid > 0.1 * len(images)


def test_rates_are_those_of_the_published_hundred_images(shared):
    content = json.loads((shared / "data/lvis_api/lvis_val_100.json").read_text())
    letter = {category["id"]: category["frequency"] for category in content["categories"]}
    pairs = {(a["image_id"], a["category_id"]) for a in content["annotations"]}
    for key, counted in (("neg_category_ids", ABSENT), ("not_exhaustive_category_ids", FLAGGED)):
        found = [letter[k] for image in content["images"] for k in image[key]]
        assert {g: found.count(g) for g in "rcf"} == counted
    found = [letter[k] for _, k in pairs]
    assert {g: found.count(g) for g in "rcf"} == PRESENT


def test_characters_that_look_alike_are_of_different_groups():
    names = characters(0)
    everything = "".join(families())
    assert len(names) == 1203 and {*names} == {*everything} and len({*names}) == 1203
    letter = dict(zip(names, LETTERS, strict=True))
    assert all(letter[a] != letter[b] for a, b in zip(everything, everything[1:], strict=False))
    large = [family for family in families() if len(family) >= 3]
    assert len(large) > 80 and all(len({letter[c] for c in family}) >= 2 for family in large)
    assert all(3 <= len(faces_of(character)) <= 6 for character in names)
    assert characters(1) != names


def test_the_same_seed_gives_the_same_records_on_every_machine(folder):
    content = json.loads((folder / "annotations_train.json").read_text())
    first = content["images"][:5]
    own = [a for a in content["annotations"] if a["image_id"] <= first[-1]["id"]]
    found = hashlib.sha256(json.dumps([first, own, [c["name"] for c in content["categories"]]]).encode())
    for image in first:
        found.update((folder / "images" / image["file_name"]).read_bytes())
    assert found.hexdigest() == RECORDS  # the same with Pillow 11.0, 11.3, 12.0 and 13.0


def test_what_was_planned_is_annotated_and_what_is_not_to_be_told_is_not(folder):
    for split in ("train", "val"):
        images, by_image, categories = read_layout(folder / f"annotations_{split}.json")
        assert len(categories) == 1203 and [c["frequency"] for c in categories] == LETTERS.tolist()
        for image, planned in zip(images, planned_images(SMALL, split), strict=True):
            told = {a["category_id"] - 1 for a in by_image[image["id"]]}
            assert told == {*planned.annotated} and len(by_image[image["id"]]) <= SMALL.objects
            assert image["neg_category_ids"] == [k + 1 for k in planned.negatives]
            assert image["not_exhaustive_category_ids"] == [k + 1 for k in planned.not_exhaustive]
            assert (folder / "images" / image["file_name"]).is_file()
    assert [c["image_count"] for c in categories] == [SMALL.cap] * 1203


def test_a_killed_drawing_goes_on_and_gives_the_bytes_of_any_number_of_workers(folder, tmp_path):
    settings = dataclasses.replace(SMALL, val_images=20, val_of_group=(0, 0, 0))  # its training part is the same
    code = "import sys; from c2am_jax.data.glyphs_lvis import *; "
    code += "s = dataclasses.replace(SMALL, val_images=20, val_of_group=(0, 0, 0)); generate(sys.argv[1], s, 1)"
    partial = tmp_path / "set.partial"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "set")], cwd=ROOT)
    until = time.monotonic() + 300
    while not (done := list(partial.glob("blocks/train_????????.json"))) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert done and not (tmp_path / "set").exists()  # nobody takes it for whole
    first = json.loads(done[0].read_text())[0][0]["file_name"]
    drawn = (partial / "images" / first).stat().st_mtime_ns
    generate(tmp_path / "set", settings, 2)
    assert (tmp_path / "set/images" / first).stat().st_mtime_ns == drawn  # not drawn again
    assert not partial.exists() and not (tmp_path / "set/blocks").exists()
    assert digest(tmp_path / "set") == digest(folder)
    generate(tmp_path / "set", settings)  # the same recipe: nothing to do
    with pytest.raises(UserError, match="other data"):
        generate(tmp_path / "set", FULL)


def test_what_another_recipe_left_unfinished_is_not_gone_on_with(tmp_path, monkeypatch):
    partial = tmp_path / "set.partial"
    (partial / "blocks").mkdir(parents=True)
    (partial / "blocks/train_00000000.json").write_text("[]")
    (partial / "glyphs.json").write_text("{}")

    def stop(blocks, workers, name):
        assert not any(block.entries.exists() for block in blocks)
        raise KeyboardInterrupt

    monkeypatch.setattr("c2am_jax.data.glyphs_lvis._draw", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", SMALL)
    assert not (tmp_path / "set").exists()


def test_what_is_asked_for_is_drawn_and_can_be_looked_at(data, folder, tmp_path):
    prepared = open_dataset(DataSettings("glyphs_lvis_small", str(data)), "val")
    assert len(prepared) == SMALL.val_images and len(prepared.categories) == 1203
    annotations, images, page = folder / "annotations_val.json", folder / "images", tmp_path / "page.html"
    said = command("-m", "c2am_jax.data.browse", annotations, "--images", images, "--out", page, "--most=4")
    assert "nothing looks wrong" in said and "of 1,203 classes" in said and page.stat().st_size > 10_000
    place = ("--data", data, "--name=glyphs_lvis_small", "--out", tmp_path)
    said = command("-m", "c2am_jax.experiments.glyphs_lvis", *place)
    assert "| classes | 337 / 461 / 405 | 337 / 461 / 405 | 337 / 461 / 405 |" in said
    assert (tmp_path / "glyphs_lvis_small.jpg").is_file() and (tmp_path / "glyphs_lvis_small_counts.png").is_file()


@pytest.mark.slow
def test_1203_classes_train_and_are_evaluated_reported_and_exported(data, folder, tmp_path):
    settings = TINY | {"data.name": "glyphs_lvis_small", "data.dir": data, "train.steps": 2}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    workdir, page = tmp_path / "run", tmp_path / "report.html"
    said = command("train.py", "--config=configs/glyphs_lvis_c2am.py", f"--workdir={workdir}", *flags)
    assert "1203 classes, 240 images" in said
    metrics = json.loads((workdir / "eval/2/metrics.json").read_text())
    assert {"bbox/APr", "segm/APr", "segm/APc", "segm/APf"} <= metrics.keys()
    said = command("eval.py", f"--workdir={workdir}", "--report", page)
    assert "step 2, 240 images of glyphs_lvis_small_val" in said and page.is_file()
    images = ("--annotations", folder / "annotations_val.json", "--images", folder / "images")
    said = command("-m", "c2am_jax.data.prepare", *images, "--name=a_val", "--out", tmp_path)
    assert "categories: 337 rare, 461 common, 405 frequent" in said
    command("-m", "c2am_jax.export", f"--workdir={workdir}", f"--out={tmp_path}/detector.bin")
    assert len(json.loads((tmp_path / "detector.bin.json").read_text())["classes"]) == 1203
