"""Crops, pasted objects and colours: geometry checked against rasters of the whole image."""

import dataclasses

import numpy as np
import pytest

from c2am_jax.data import builder, prepared
from c2am_jax.data.augment import (
    Instances,
    Placement,
    crop,
    draw_partner,
    draw_placement,
    jitter_colours,
    paste,
    resample,
)
from c2am_jax.data.box_masks import MASK_SIZE, pack
from c2am_jax.data.pipeline import eval_batches, train_batches
from c2am_jax.data.sampler import Augmentation
from c2am_jax.data.settings import DataSettings
from c2am_jax.data.tensorflow_host import tf

HW = (120, 160)


def disc(centre, radius, hw=HW):
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    return (((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 <= 1).astype(np.uint8)


def instances_of(rasters):
    """Tight boxes and box-frame masks of whole-image rasters; classes 0, 1, ..."""
    boxes, masks = [], []
    for raster in rasters:
        rows, columns = np.flatnonzero(raster.any(1)), np.flatnonzero(raster.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        frame = (0, 0, *raster.shape[::-1])
        boxes.append(box)
        masks.append(pack(resample(raster, frame, box, (MASK_SIZE, MASK_SIZE))))
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(len(rasters), dtype=np.int32),
        np.array(masks, np.uint8).reshape(-1, MASK_SIZE, MASK_SIZE // 8),
    )


def rasters_of(instances, hw):
    """Whole-image rasters of box-frame masks."""
    frame = (0, 0, hw[1], hw[0])
    pairs = zip(instances.boxes, instances.masks, strict=True)
    return [resample(np.unpackbits(bits, axis=-1), box, frame, hw) for box, bits in pairs]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def assert_boxes_fit(instances, rasters, atol):
    for box, raster in zip(instances.boxes, rasters, strict=True):
        rows, columns = np.flatnonzero(raster.any(1)), np.flatnonzero(raster.any(0))
        np.testing.assert_allclose(box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=atol)


def test_a_mask_seen_through_its_own_grid_is_itself():
    mask = np.random.default_rng(0).integers(0, 2, (13, 9), np.uint8)
    np.testing.assert_array_equal(resample(mask, (2, 3, 20, 29), (2, 3, 20, 29), (13, 9)), mask)
    fine = resample(mask, (0, 0, 9, 13), (0, 0, 9, 13), (13 * 4, 9 * 4))
    assert abs(fine.mean() - mask.mean()) < 0.1
    beside = resample(np.ones((4, 4), np.uint8), (0, 0, 4, 4), (-2, 0, 6, 4), (4, 8))
    assert beside[:, 2:6].all() and not beside[:, :2].any() and not beside[:, 6:].any()


def test_a_crop_shows_what_a_raster_shows():
    whole = [disc((40, 50), (30, 25)), disc((80, 110), (35, 45)), disc((60, 80), (8, 8))]
    window = (25, 40, 70, 80)
    part = [raster[25:95, 40:120] for raster in whole]
    found = crop(instances_of(whole), window)
    np.testing.assert_array_equal(found.labels, [0, 1, 2])
    for raster, expected in zip(rasters_of(found, (70, 80)), part, strict=True):
        assert iou(raster, expected.astype(bool)) > 0.97
    assert_boxes_fit(found, part, atol=1.0)


def test_a_cut_box_is_the_box_of_what_remains_of_its_mask():
    """A diagonal bar: the window's part of its box reaches much further than its pixels."""
    y, x = np.mgrid[:120, :160]
    bar = (np.abs(y - x) <= 4).astype(np.uint8)
    found = crop(instances_of([bar]), (0, 0, 30, 120))
    assert found.boxes[0, 2] == pytest.approx(34, abs=1.5)
    np.testing.assert_allclose(found.boxes[0, [0, 1, 3]], [0, 0, 30], atol=1.0)


def test_what_a_crop_leaves_whole_keeps_its_numbers():
    whole = instances_of([disc((40, 50), (10, 15)), disc((80, 110), (35, 45))])
    found = crop(whole, (20, 30, 60, 60))
    np.testing.assert_array_equal(found.boxes[0], whole.boxes[0] - [30, 20, 30, 20])
    np.testing.assert_array_equal(found.masks[0], whole.masks[0])
    assert (found.masks[1] != whole.masks[1]).any()


def test_what_a_crop_hides_goes():
    # Outside; a corner of the box without a pixel of the disc; less than a pixel.
    whole = instances_of([disc((40, 50), (10, 10)), disc((60, 100), (40, 40)), disc((100, 30), (15, 15))])
    assert crop(whole, (95, 135, 25, 25)).labels.tolist() == []
    sliver = dataclasses.replace(whole[2:], boxes=np.array([[15.0, 85.0, 44.6, 115.0]], np.float32))
    assert len(crop(sliver, (80, 43, 40, 30))) == 1 and len(crop(sliver, (80, 44, 40, 30))) == 0
    assert len(crop(whole[:0], (0, 0, 5, 5))) == 0


def test_a_one_to_one_paste_copies_pixels_and_covers_what_lies_below():
    image, other = np.full((*HW, 3), 50, np.uint8), np.full((*HW, 3), 200, np.uint8)
    below, hidden, apart = disc((60, 60), (30, 40)), disc((60, 75), (5, 5)), disc((20, 140), (10, 10))
    above = disc((60, 80), (25, 25))
    placement = Placement((1.0, 1.0), (0.0, 0.0), False, np.array([True]))
    made, found = paste(image, instances_of([below, hidden, apart]), other, instances_of([above]), placement)
    assert ((made == 200).all(-1) == above.astype(bool)).mean() > 0.999 and set(np.unique(made)) == {50, 200}
    assert (image == 50).all()
    assert found.labels.tolist() == [0, 2, 0]
    expected = [below & ~above, apart, above]
    for raster, truth in zip(rasters_of(found, HW), expected, strict=True):
        assert iou(raster, truth.astype(bool)) > 0.96
    assert_boxes_fit(found, expected, atol=1.0)


def test_a_pasted_object_is_mirrored_scaled_and_moved_with_its_pixels():
    rng = np.random.default_rng(1)
    other = np.kron(rng.integers(0, 256, (10, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    source = disc((30, 20), (20, 12), (80, 80))
    placement = Placement((0.5, 0.75), (30.0, 40.0), True, np.array([True]))
    made, found = paste(np.zeros((*HW, 3), np.uint8), instances_of([]), other, instances_of([source]), placement)
    expected = np.zeros(HW, bool)
    y, x = np.mgrid[:120, :160] + 0.5
    sy, sx = (y - 30) / 0.5, 80 - (x - 40) / 0.75
    inside = (sy >= 0) & (sy < 80) & (sx >= 0) & (sx < 80)
    expected[inside] = source[sy[inside].astype(int), sx[inside].astype(int)]
    assert iou(made.any(-1), expected) > 0.95
    assert iou(rasters_of(found, HW)[0], expected) > 0.95
    flat = expected & (np.abs(sx % 8 - 4) < 1.5) & (np.abs(sy % 8 - 4) < 1.5)  # away from the borders of the squares
    assert flat.sum() > 20
    truth = other[sy[flat].astype(int), sx[flat].astype(int)].astype(int)
    assert np.median(np.abs(made[flat].astype(int) - truth)) <= 2


def test_a_paste_outside_the_image_changes_nothing():
    image, instances = np.zeros((*HW, 3), np.uint8), instances_of([disc((60, 60), (30, 40))])
    placement = Placement((1.0, 1.0), (-500.0, 0.0), False, np.array([True]))
    made, found = paste(image, instances, image, instances, placement)
    assert made is image and found is instances


def test_partner_and_placement_are_functions_of_the_key():
    augmentation = Augmentation((48, 64), 120, 0.5, ((64, 128),), (0.5, 2.0))
    images = np.array([3, 5, 9])
    partners = [draw_partner(key, images, 0.6) for key in range(300)]
    assert partners == [draw_partner(key, images, 0.6) for key in range(300)]
    assert set(partners) == {-1, 3, 5, 9} and 0.3 < np.mean(np.array(partners) == -1) < 0.5
    hw, target, other = np.array([60, 80]), np.array([48, 64]), np.array([40, 40])
    placements = [draw_placement(key, hw, target, other, 4, augmentation) for key in range(200)]
    assert all(p.chosen.any() for p in placements) and not all(p.chosen.all() for p in placements)
    assert 0.3 < np.mean([p.flip for p in placements]) < 0.7
    scales = np.array([p.scale for p in placements]) * 48 / 60 * 40
    assert 20 < scales.min() < 40 and 100 < scales.max() < 130  # 48 to 64, times 0.5 to 2
    again = draw_placement(7, hw, target, other, 4, augmentation)
    assert again.offset == placements[7].offset and (again.chosen == placements[7].chosen).all()


def test_colours_change_with_the_key_alone():
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))
    first, again, other = (
        jitter_colours(image, tf.constant(k, tf.int64), (0.4, 0.4, 0.4, 0.1)).numpy() for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 3
    np.testing.assert_allclose(jitter_colours(image, tf.constant(1, tf.int64), (0, 0, 0, 0)).numpy(), image, atol=1)


SETTINGS = DataSettings(
    canvas=64,
    max_instances=6,
    short_sides=(48, 64),
    max_side=96,
    buckets=((64, 96), (96, 64)),
    test_short_side=48,
    workers=2,
)
ALL = dataclasses.replace(SETTINGS, scale_jitter=(0.3, 2.0), copy_paste=0.7, color_jitter=(0.4, 0.4, 0.4, 0.1))


@pytest.fixture
def dataset(tiny, tmp_path):
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data")
    return prepared.load("tiny", tmp_path / "data")


def fields(batch):
    return {name: np.asarray(getattr(batch, name)) for name in batch.__dataclass_fields__}


def test_augmented_batches_keep_the_contract(dataset):
    stream = train_batches(dataset, ALL, batch_size=2, seed=0)
    seen = set()
    for bucket, batch in (next(stream) for _ in range(30)):
        assert bucket in ALL.buckets
        assert batch.image.shape == (2, 64, 64, 3) and batch.masks.shape == (2, 6, 112, 14)
        assert (batch.target_hw <= bucket).all() and (batch.source_hw <= 64).all()
        for row in range(2):
            height, width = batch.source_hw[row]
            boxes, count = batch.boxes[row][batch.valid[row]], batch.valid[row].sum()
            assert batch.valid[row, :count].all() and not batch.boxes[row, count:].any()
            assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
            assert batch.masks[row, :count].any((1, 2)).all()
            assert not batch.image[row, height:].any() and not batch.image[row, :, width:].any()
            seen.add((int(batch.image_id[row]), int(count)))
    assert len({count for image, count in seen if image == 1}) > 2


def test_augmented_streams_depend_on_neither_workers_nor_start(dataset):
    many = dataclasses.replace(ALL, workers=4)
    whole = train_batches(dataset, ALL, batch_size=2, seed=3)
    whole = [next(whole) for _ in range(9)]
    rest = train_batches(dataset, many, batch_size=2, seed=3, start_step=4)
    for (bucket_a, a), (bucket_b, b) in zip(whole[4:], rest, strict=False):
        assert bucket_a == bucket_b
        for name, value in fields(a).items():
            np.testing.assert_array_equal(value, fields(b)[name], err_msg=name)


def test_evaluation_sees_the_images_as_they_are(dataset):
    plain, augmented = (list(eval_batches(dataset, s, batch_size=2)) for s in (SETTINGS, ALL))
    for (_, a), (_, b) in zip(plain, augmented, strict=True):
        for name, value in fields(a).items():
            np.testing.assert_array_equal(value, fields(b)[name], err_msg=name)
