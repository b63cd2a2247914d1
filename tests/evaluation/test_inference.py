"""From detections in input pixels to results entries at the original size."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.evaluation.encoding import encode, encode_image
from c2am_jax.evaluation.inference import _join


def entries(boxes, masks=None):
    """Box and mask entries of detections in an input of 60 x 120, at half that size or less."""
    count = len(boxes)
    masks = np.ones((count, 28, 28), np.float32) if masks is None else masks
    labels = np.array([5, 7, 9])[np.arange(count) % 3]
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    sizes = np.array([60, 120]), np.array([30, 40])
    found = encode_image(42, np.asarray(boxes, np.float32), scores, labels, masks, *sizes)
    return [[json.loads(line) for line in lines] for lines in found]


def test_boxes_are_scaled_by_each_axis_and_clipped():
    (box, outside), _ = entries([[30, 20, 60, 40], [90, 50, 200, 100]])
    assert box["bbox"] == pytest.approx([10, 10, 10, 10]) and outside["bbox"] == pytest.approx([30, 25, 10, 5])
    assert (box["image_id"], box["category_id"], outside["category_id"]) == (42, 5, 7)
    assert box["score"] == pytest.approx(0.9)


def test_masks_are_compressed_rle_of_the_original_size():
    half = np.zeros((1, 28, 28), np.float32)
    half[:, :, :14] = 1
    _, (entry,) = entries([[30, 20, 60, 40]], masks=half)
    mask = coco_mask.decode(entry["segmentation"])
    assert mask.shape == (30, 40) and mask[10:20, 10:15].all() and mask.sum() == 50


def test_masks_do_not_leak_into_the_next_detection():
    _, found = entries([[0, 0, 60, 30], [60, 30, 120, 60]])
    masks = [coco_mask.decode(e["segmentation"]) for e in found]
    assert not (masks[0] & masks[1]).any() and masks[0].sum() == masks[1].sum() == 15 * 20


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_rle_of_a_region_is_that_of_the_whole_raster(share):
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 12, 2)
        rows, columns = rng.integers(0, (height + 1, width + 1))
        top, left = rng.integers(0, (height - rows + 1, width - columns + 1))
        region = rng.random((rows, columns)) < share
        raster = np.zeros((height, width), np.uint8, order="F")
        raster[top : top + rows, left : left + columns] = region
        wanted = coco_mask.encode(raster)["counts"].decode()
        assert encode(region, (top, left), (height, width)) == wanted


@pytest.mark.parametrize(
    "parts", [["", ""], ['{"a": 1}\n', ""], ["", '{"a": 1}\n{"a": 2}\n'], ['{"a": 1}\n', '{"a": 2}\n']]
)
def test_parts_of_several_processes_become_one_list(tmp_path, parts):
    paths = [tmp_path / f"{i}.partial" for i in range(2)]
    for path, text in zip(paths, parts, strict=True):
        path.write_text(text)
    _join(paths, tmp_path / "all.json")
    assert [entry["a"] for entry in json.loads((tmp_path / "all.json").read_text())] == list(
        range(1, 1 + sum(text.count("\n") for text in parts))
    )
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]
