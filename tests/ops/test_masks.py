"""Mask targets and pasting."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_roi_align import plain_roi_align

from c2am_jax.data.box_masks import box_frame, pack, rasterise
from c2am_jax.evaluation.encoding import paste
from c2am_jax.ops.masks import mask_targets, unpack

targets = jax.jit(mask_targets)


def ellipse(hw, box):
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]] + 0.5
    (cx, cy), (rx, ry) = np.add(box[:2], box[2:]) / 2, np.subtract(box[2:], box[:2]) / 2
    return (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1).astype(np.uint8)


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def test_unpack_inverts_pack():
    masks = np.random.default_rng(0).integers(0, 2, (3, 112, 112), np.uint8)
    np.testing.assert_array_equal(unpack(jnp.asarray(pack(masks))), masks)


def test_targets_of_whole_image_masks_equal_the_plain_rule_in_every_bit():
    hw = (60, 80)
    mask = ellipse(hw, [10, 5, 60, 55])
    rois = [[10, 5, 60, 55], [0, 0, 80, 60], [30.3, 20.2, 75.1, 40.9], [5, 5, 12, 50], [22, 37, 33, 61]]
    rois = np.array(rois, np.float32)
    frames = jnp.asarray([[0.0, 0.0, 80.0, 60.0]])
    found = targets(jnp.asarray(mask[None]), frames, jnp.zeros(5, jnp.int32), jnp.asarray(rois))
    values = np.stack([plain_roi_align(mask[..., None].astype(float), roi, 1, 28)[..., 0] for roi in rois])
    assert (np.abs(values - 0.5) < 1e-9).sum() >= 4, "the case has bins that are exactly half covered"
    np.testing.assert_array_equal(np.asarray(found, bool), values >= 0.5 - 1e-9)


def test_a_coarse_mask_is_enlarged_to_its_frame():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :, :2] = 1
    frame = jnp.asarray([[10.0, 20.0, 122.0, 132.0]])
    found = np.asarray(mask_targets(jnp.asarray(mask), frame, jnp.zeros(1, jnp.int32), frame))[0]
    assert found[:, :14].all() and not found[:, 14:].any()


def test_each_roi_reads_its_own_ground_truth():
    masks = jnp.stack([jnp.ones((16, 16), jnp.uint8), jnp.zeros((16, 16), jnp.uint8)])
    frames = jnp.asarray([[0.0, 0.0, 16.0, 16.0]] * 2)
    rois = jnp.asarray([[2.0, 2.0, 12.0, 12.0]] * 2)
    found = targets(masks, frames, jnp.array([1, 0]), rois)
    assert float(found[0].max()) == 0 and float(found[1].min()) == 1


def test_padding_without_area_gives_an_empty_target():
    found = targets(jnp.ones((1, 16, 16)), jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 4)))
    assert jnp.isfinite(found).all() and float(found.max()) == 0


def test_box_frame_masks_of_real_instances_give_the_targets_of_full_masks(shared):
    content = json.loads((shared / "data" / "lvis_api" / "lvis_val_100.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    rng = np.random.default_rng(0)

    def target(m, f, r):
        return targets(m, f, jnp.zeros(1, jnp.int32), r)[0]

    pasted, crops = [], []
    for annotation in content["annotations"][::12]:
        hw = sizes[annotation["image_id"]]
        raster = rasterise(annotation["segmentation"], hw)
        x, y, w, h = annotation["bbox"]
        box = np.array([x, y, x + w, y + h], np.float32)
        framed = box_frame(raster, box)
        region, (top, left) = paste(framed.astype(np.float32), box, hw)
        again = np.zeros(hw, np.uint8)
        again[top : top + region.shape[0], left : left + region.shape[1]] = region
        pasted.append(iou(again, raster))
        roi = box + rng.uniform(-0.1, 0.1, 4).astype(np.float32) * [w, h, w, h]
        canvas = np.zeros((640, 640), np.uint8)
        canvas[: hw[0], : hw[1]] = raster
        whole = jnp.array([[0.0, 0.0, 640.0, 640.0]])
        full = target(jnp.asarray(canvas[None]), whole, jnp.asarray(roi[None]))
        small = target(jnp.asarray(framed[None]), jnp.asarray(box[None]), jnp.asarray(roi[None]))
        crops.append(iou(np.asarray(full, np.uint8), np.asarray(small, np.uint8)))
    assert len(crops) > 80
    assert np.mean(pasted) >= 0.97
    assert np.mean(crops) >= 0.97


def plain_paste(probability, box, hw):
    """Every pixel centre of the whole image, bilinear with zeros around the mask."""
    size = probability.shape[0]
    padded = np.pad(probability, 1)
    result = np.zeros(hw, bool)
    for i in range(hw[0]):
        for j in range(hw[1]):
            y = (i + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
            x = (j + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
            if not (-1 < y < size and -1 < x < size):
                continue
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            fy, fx = y - y0, x - x0
            corner = padded[y0 + 1 : y0 + 3, x0 + 1 : x0 + 3]
            result[i, j] = np.array([1 - fy, fy]) @ corner @ np.array([1 - fx, fx]) >= 0.5
    return result


PASTED = [[5.3, 4.1, 30.9, 25.2], [-6, -3, 20, 18], [20, 10, 60, 45], [10, 10, 11.2, 30]]


@pytest.mark.parametrize("box", PASTED)
def test_paste_equals_the_whole_image_rule(box):
    probability = np.random.default_rng(1).uniform(0, 1, (28, 28)).astype(np.float32)
    hw = (32, 40)
    region, (top, left) = paste(probability, np.array(box, np.float32), hw)
    found = np.zeros(hw, bool)
    found[top : top + region.shape[0], left : left + region.shape[1]] = region
    assert (found == plain_paste(probability, box, hw)).mean() > 0.999


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [100, 100, 120, 120], [-20, -20, -10, -5]])
def test_boxes_without_area_or_outside_paste_nothing(box):
    region, _ = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), (32, 40))
    assert not region.any()
