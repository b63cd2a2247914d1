"""Resize, flip, normalise and pad on the device."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.data.box_masks import pack
from c2am_jax.ops.preprocess import RESIZERS, preprocess
from c2am_jax.structures import Batch

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)


def batch_of(image, target, flip=False, canvas=64):
    source = image.shape[:2]
    padded = np.full((canvas, canvas, 3), 255, np.uint8)  # what lies outside the image must not leak in
    padded[: source[0], : source[1]] = image
    mask = np.zeros((1, 2, 112, 112), np.uint8)
    mask[0, 0, :, :56] = 1
    return Batch(
        image=jnp.asarray(padded[None]),
        source_hw=jnp.asarray([source], jnp.int32),
        target_hw=jnp.asarray([target], jnp.int32),
        flip=jnp.asarray([flip]),
        boxes=jnp.asarray([[[4.0, 2.0, 20.0, 30.0], [0.0, 0.0, 9.0, 9.0]]]),
        labels=jnp.asarray([[3, 0]], jnp.int32),
        masks=jnp.asarray(pack(mask)),
        valid=jnp.asarray([[True, False]]),
        image_id=jnp.asarray([7]),
    )


def run(batch, bucket, resizer="auto"):
    return jax.jit(lambda b: preprocess(b, bucket, mean=MEAN, std=STD, resizer=resizer))(batch)


def image_of(hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def pixels(inputs, hw):
    return np.asarray(inputs.image[0, : hw[0], : hw[1]]) * STD + MEAN


SIZES = [((40, 60), (80, 120)), ((50, 37), (91, 67)), ((60, 60), (45, 45))]


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resizing_follows_cv2s_bilinear_rule(source, target, flip, resizer):
    image = image_of(source)
    found = pixels(run(batch_of(image, target, flip), (128, 128), resizer), target)
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR).astype(float)
    if flip:
        expected = expected[:, ::-1]
    assert (np.abs(found - expected) <= 1.0).mean() >= 0.999


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("flip", [False, True])
def test_no_resizing_changes_no_pixel(flip, resizer):
    image = image_of((40, 60))
    found = run(batch_of(image, (40, 60), flip), (64, 64), resizer).image[0, :40, :60]
    expected = (image[:, ::-1] if flip else image).astype(np.float32)
    expected = (expected - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=0)


def test_everything_outside_the_image_is_zero():
    inputs = run(batch_of(image_of((40, 60)), (30, 45)), (64, 96))
    assert (inputs.image[0, 30:] == 0).all() and (inputs.image[0, :, 45:] == 0).all()
    assert (inputs.image_hw == jnp.array([[30, 45]])).all()


def test_boxes_scale_by_each_axis_and_mirror():
    plain = run(batch_of(image_of((40, 60)), (80, 90)), (96, 96))
    np.testing.assert_allclose(plain.boxes[0, 0], [6, 4, 30, 60], rtol=1e-6)
    mirrored = run(batch_of(image_of((40, 60)), (80, 90), flip=True), (96, 96))
    np.testing.assert_allclose(mirrored.boxes[0, 0], [60, 4, 84, 60], rtol=1e-6)
    np.testing.assert_array_equal(mirrored.mask_frames, mirrored.boxes)
    assert (mirrored.boxes[0, 1] == 0).all()


def test_masks_mirror_with_the_image():
    plain = run(batch_of(image_of((40, 60)), (40, 60)), (64, 64))
    mirrored = run(batch_of(image_of((40, 60)), (40, 60), flip=True), (64, 64))
    assert plain.masks[0, 0, :, :56].all() and not plain.masks[0, 0, :, 56:].any()
    np.testing.assert_array_equal(mirrored.masks[0, 0], plain.masks[0, 0, :, ::-1])


def test_resizing_a_photo_sized_image_is_within_one_grey_level_of_cv2():
    """A smooth generated picture with edges, to every training size of the paper, whole and rounded."""
    y, x = np.mgrid[:427, :640]
    waves = [np.sin(x / 17 + y / 31 + c) + np.sign(np.sin(x / 41) * np.sin(y / 29 + c)) for c in range(3)]
    image = np.rint(127.5 + 60 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)
    for target in ((640, 959), (672, 1007), (800, 1199)):
        found = pixels(run(batch_of(image, target, canvas=640), (800, 1216)), target)
        expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR).astype(float)
        assert (np.abs(found - expected) <= 1.0).mean() >= 0.999
        assert np.abs(found - expected).max() < 1.6


@pytest.mark.parametrize("flip", [False, True])
def test_both_resizers_agree(flip):
    batch = batch_of(image_of((50, 37)), (91, 67), flip)
    first, second = (np.asarray(run(batch, (96, 128), resizer).image) for resizer in RESIZERS)
    np.testing.assert_allclose(first, second, atol=2e-5)
