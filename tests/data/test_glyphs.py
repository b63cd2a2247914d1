"""The built-in set."""

import collections
import json

import numpy as np
import pytest
from layout import read_layout
from PIL import Image
from pycocotools import mask as coco_mask

from c2am_jax.data.glyphs import CHARACTERS, GlyphSettings, generate, training_counts
from c2am_jax.errors import UserError

SMALL = GlyphSettings(train_images=480, val_images=50, val_per_category=2, head=130)  # as crowded as the default


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("glyphs") / "set"
    generate(path, SMALL)
    return path


def test_drawing_is_deterministic(folder, tmp_path):
    generate(tmp_path / "again", SMALL)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes(), file.name


def test_both_parts_are_in_the_lvis_layout(folder):
    for split in ("train", "val"):
        images, _, categories = read_layout(folder / f"annotations_{split}.json")
        assert len(categories) == len(CHARACTERS) == 100
        for image in images:
            with Image.open(folder / "images" / image["file_name"]) as picture:
                assert (picture.height, picture.width) == (image["height"], image["width"])


def test_boxes_are_tight_and_masks_do_not_overlap(folder):
    images, by_image, _ = read_layout(folder / "annotations_val.json")
    for image in images[:10]:
        total = np.zeros((SMALL.size, SMALL.size), int)
        for annotation in by_image[image["id"]]:
            mask = coco_mask.decode(annotation["segmentation"])
            assert mask.shape == (image["height"], image["width"])
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box and annotation["area"] == mask.sum()
            total += mask
        assert total.max() <= 1


def test_negative_categories_are_absent_from_the_image(folder):
    images, by_image, _ = read_layout(folder / "annotations_val.json")
    for image in images:
        present = {a["category_id"] for a in by_image[image["id"]]}
        assert image["neg_category_ids"] and not present & set(image["neg_category_ids"])


def test_default_frequencies_fall_into_all_three_groups():
    counts = training_counts(GlyphSettings())
    assert (counts <= 10).sum() >= 20 and ((counts > 10) & (counts <= 100)).sum() >= 40 and (counts > 100).sum() >= 15
    assert (np.diff(counts) <= 0).all()


def test_what_was_planned_is_drawn_and_counted(folder):
    content = json.loads((folder / "annotations_train.json").read_text())
    images = collections.defaultdict(set)
    for annotation in content["annotations"]:
        images[annotation["category_id"]].add(annotation["image_id"])
    drawn = sorted((len(images[c["id"]]) for c in content["categories"]), reverse=True)
    assert drawn == training_counts(SMALL).tolist()
    for category in content["categories"]:
        count = len(images[category["id"]])
        assert category["image_count"] == count
        assert category["frequency"] == ("r" if count <= 10 else "c" if count <= 100 else "f")


def test_validation_has_every_category_equally_often(folder):
    content = json.loads((folder / "annotations_val.json").read_text())
    seen = collections.Counter(a["category_id"] for a in content["annotations"])
    assert [seen[c["id"]] for c in content["categories"]] == [SMALL.val_per_category] * len(CHARACTERS)
    assert GlyphSettings().val_per_category >= 8  # fewer instances make a category's AP a coin toss


def test_glyphs_overlap(folder):
    images, by_image, _ = read_layout(folder / "annotations_val.json")
    touching = 0
    for image in images:
        boxes = np.array([a["bbox"] for a in by_image[image["id"]]])
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
        touching += (shared > 0).all(-1).sum() - len(boxes)
    assert touching > 0


def test_a_folder_with_other_content_is_left_alone(folder, tmp_path):
    generate(folder, SMALL)  # the same recipe: nothing to do
    with pytest.raises(UserError, match="other data"):
        generate(folder, GlyphSettings(seed=1))
