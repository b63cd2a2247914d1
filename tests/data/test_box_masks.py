"""Masks on the host."""

import json
import math
import time

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import (
    BadMask,
    bounding_box,
    box_frame,
    box_mask,
    check_compressed,
    checked_rle,
    rasterise,
    run_lengths,
)


def test_a_mask_that_fills_its_box_fills_its_frame():
    raster = np.zeros((40, 50), np.uint8)
    raster[10:30, 5:45] = 1
    assert box_frame(raster, np.array([5.0, 10.0, 45.0, 30.0])).all()


def test_the_frame_keeps_the_shape_of_the_mask():
    raster = np.zeros((40, 40), np.uint8)
    raster[10:30, 10:20] = 1  # left half of the box
    frame = box_frame(raster, np.array([10.0, 10.0, 30.0, 30.0]))
    assert frame[:, :54].all() and not frame[:, 58:].any()


def test_boxes_at_the_border_stay_inside_the_raster():
    frame = box_frame(np.ones((8, 8), np.uint8), np.array([0.0, 0.0, 8.0, 8.0]))
    assert frame.shape == (112, 112) and frame.all()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], "3 points"),
        ([], "no mask"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0]], "odd"),
        ([[1.0, 2.0, 3.0, float("nan"), 5.0, 6.0]], "non-finite"),
        ([[1.0, 2.0, 3.0, True, 5.0, 6.0]], "not a list of numbers"),
        ([[1.0, 2.0, 3.0, [4.0], 5.0, 6.0]], "not a list of numbers"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "not a list of numbers"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, 1e9]], "beyond the image"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, -(10**30)]], "beyond the image"),
        ([[1, 2, 3, 10**400, 5, 6]], "non-finite"),
        ({"size": [3, 3], "counts": [9]}, "size"),
        ({"size": [10, 10], "counts": [20, 20]}, "do not sum to the 100 pixels"),
        ({"size": [10, 10], "counts": [90, 20]}, "do not sum to the 100 pixels"),
        ({"size": [10, 10], "counts": []}, "do not sum to the 100 pixels"),
        ({"size": [10, 10], "counts": [-20, 120]}, "no count of pixels"),
        ({"size": [10, 10], "counts": [50.5, 49.5]}, "no count of pixels"),
        ({"size": [10, 10], "counts": [10**30]}, "no count of pixels"),
        ({"size": [10, 10], "counts": None}, "neither a list nor a string"),
        ({"size": [10, 10], "counts": ""}, "cut off"),
        ({"size": [10, 10], "counts": "PQ"}, "cut off"),
        ({"size": [10, 10], "counts": "Ö1"}, "wrong character"),
        ({"size": [10, 10], "counts": "T€3"}, "wrong character"),  # which are three bytes for pycocotools
        ({"size": [10, 10], "counts": "T\ud8003"}, "wrong character"),
        ({"size": [10, 10], "counts": "oooooooooooo0"}, "no count of pixels"),
        ("polygon", "neither"),
        (None, "no mask"),
        ({}, "no mask"),
        ({"size": [10, 10], "counts": "b'PPP1'"}, "decode them"),
    ],
)
def test_what_cannot_be_rasterised_says_why(segmentation, reason):
    with pytest.raises(BadMask, match=reason):
        rasterise(segmentation, (10, 10))


def test_uncompressed_rle_and_polygons_agree():
    rectangle = np.zeros((10, 12), int)
    rectangle[2:6, 3:8] = 1
    runs, value, counts = rectangle.flatten(order="F"), 0, [0]
    for pixel in runs:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    from_rle = rasterise({"size": [10, 12], "counts": counts}, (10, 12))
    np.testing.assert_array_equal(from_rle, rectangle)
    np.testing.assert_array_equal(rasterise([[3, 2, 8, 2, 8, 6, 3, 6]], (10, 12)), rectangle)


def random_masks(count=60):
    """Blobs, stripes and noise of many sizes: uint8 [h, w]."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        hw = rng.integers(1, 70, 2)
        coarse = rng.random((-(-hw[0] // 4), -(-hw[1] // 4))) < rng.random()
        yield coarse.repeat(4, 0).repeat(4, 1)[: hw[0], : hw[1]] ^ (rng.random(hw) < rng.choice([0, 0.1]))


def test_compressed_and_uncompressed_rle_are_read_as_pycocotools_reads_them():
    for mask in random_masks():
        raster = np.asfortranarray(mask.astype(np.uint8))
        rle = coco_mask.encode(raster)
        for counts in (rle["counts"], rle["counts"].decode()):
            found = rasterise({"size": list(mask.shape), "counts": counts}, mask.shape)
            np.testing.assert_array_equal(found, raster)
        runs = np.diff(np.flatnonzero(np.diff(raster.ravel("F"), prepend=0, append=2)), prepend=0).tolist()
        np.testing.assert_array_equal(rasterise({"size": list(mask.shape), "counts": runs}, mask.shape), raster)


def test_counts_of_another_number_of_pixels_are_refused_however_they_are_written():
    for mask in random_masks():
        counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        for wrong in ((mask.shape[0] + 1, mask.shape[1]), (mask.shape[0], mask.shape[1] + 3)):
            with pytest.raises(BadMask, match="do not sum"):
                rasterise({"size": list(wrong), "counts": counts}, wrong)


def test_only_the_pixels_under_the_box_are_needed():
    rng = np.random.default_rng(1)
    compared = 0
    for mask in random_masks(200):
        low = rng.uniform(0, 0.8, 2) * mask.shape[::-1]
        high = low + rng.uniform(0.1, 1, 2) * (mask.shape[::-1] - low)
        box = np.concatenate([low, high]).astype(np.float32)
        rle = {"size": list(mask.shape), "counts": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]}
        if mask.any():
            compared += 1
            np.testing.assert_array_equal(box_mask(rle, box, mask.shape), box_frame(mask.astype(np.uint8), box))
        else:
            with pytest.raises(BadMask, match="outside the image"):
                box_mask(rle, box, mask.shape)
    assert compared > 100


@pytest.mark.parametrize(
    "polygon",
    [
        [-5.2, -3.0, 30.1, 2.5, 9.9, 41.0],  # over the border on both sides
        [2.0, 2.0, 2.0, 2.0, 2.0, 2.0],  # a point
        [1, 1, 60, 1, 60, 45, 1, 45],
    ],
)
def test_polygons_over_the_border_are_rasterised_as_pycocotools_does(polygon):
    hw = (40, 50)
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon, [5, 5, 9, 5, 9, 9]], *hw)))
    np.testing.assert_array_equal(rasterise([polygon, [5, 5, 9, 5, 9, 9], [1.0, 2.0]], hw), expected)


@pytest.mark.slow
def test_masks_pasted_back_are_those_of_the_real_instances(shared):
    from c2am_jax.data.shards import trainable_box
    from c2am_jax.evaluation.encoding import paste

    content = json.loads((shared / "data" / "lvis_api" / "lvis_val_100.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    overlap, area = [], []
    for annotation in content["annotations"]:
        hw = sizes[annotation["image_id"]]
        box = trainable_box(annotation["bbox"], hw)
        raster = rasterise(annotation["segmentation"], hw)
        region, (top, left) = paste(box_mask(annotation["segmentation"], box, hw), box, hw)
        common = (raster[top : top + region.shape[0], left : left + region.shape[1]] & region).sum()
        overlap.append(common / (raster.sum() + region.sum() - common))
        area.append(raster.sum())
    overlap, small = np.array(overlap), np.array(area) < 32**2
    assert len(overlap) == 977 and 500 < small.sum() < 600
    assert overlap[small].mean() >= 0.97 and overlap[~small].mean() >= 0.97
    # 13 boxes of two images do not belong to their polygons: a fault of the file.
    assert (overlap < 0.5).sum() == 13 and np.percentile(overlap[overlap >= 0.5], 1) > 0.9


def test_twenty_thousand_damaged_strings_are_refused_or_are_masks_of_the_raster():
    """What reaches pycocotools never loops and never leaves the raster; each is read at once and alone alike."""
    rng = np.random.default_rng(7)
    hw, start = (24, 31), time.monotonic()
    wholes = [
        coco_mask.encode(np.asfortranarray(rng.random(hw) < p).astype(np.uint8))["counts"] for p in (0.02, 0.3, 0.9)
    ]
    texts = []
    for number in range(20_000):
        text = bytearray(wholes[number % 3])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(text))) if text else 0
            what = rng.integers(4)
            if what == 0:
                del text[at:]
            elif what == 1:
                text[at:at] = bytes([int(rng.integers(1, 128))])
            elif what == 2 and text:
                text[at] ^= 1 << int(rng.integers(7))
            else:
                del text[at : at + 1]
        texts.append(bytes(text).decode("latin-1"))
    refused = 0
    for text in texts:
        try:
            rle = checked_rle({"size": list(hw), "counts": text}, hw)
        except BadMask:
            refused += 1
            with pytest.raises(BadMask):
                check_compressed([wholes[0].decode(), text], [math.prod(hw)] * 2)
        else:
            check_compressed([text], [math.prod(hw)])
            assert coco_mask.area(rle) == coco_mask.decode(rle).sum() <= math.prod(hw)
    assert 15_000 < refused < 20_000
    assert time.monotonic() - start < 120


def test_the_first_wrong_one_of_many_is_named():
    whole = coco_mask.encode(np.ones((5, 5), np.uint8, order="F"))["counts"].decode()
    with pytest.raises(BadMask, match="do not sum to the 24") as error:
        check_compressed([whole] * 5, [25, 25, 24, 25, 9])
    assert error.value.place == 2


def test_boxes_around_masks_are_those_of_pycocotools():
    rng = np.random.default_rng(3)
    for _ in range(200):
        raster = np.zeros((13, 17), np.uint8, order="F")
        y, x = rng.integers(0, 13), rng.integers(0, 17)
        raster[y : y + rng.integers(1, 14), x : x + rng.integers(1, 18)] = 1
        raster &= rng.random(raster.shape) < rng.choice([0.2, 1.0])
        raster[y, x] = 1
        rle = coco_mask.encode(raster)
        left, top, w, h = coco_mask.toBbox(rle)
        lengths = run_lengths({"size": [13, 17], "counts": rle["counts"]}, (13, 17))
        np.testing.assert_array_equal(bounding_box(lengths, (13, 17)), [left, top, left + w, top + h])
