"""Batches: content, determinism, resuming."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from c2am_jax.checks import WrongSetting
from c2am_jax.data import builder, prepared
from c2am_jax.data.pipeline import NO_IMAGE, epoch_length, eval_batches, train_batches
from c2am_jax.data.prepared import UnreadableRecord
from c2am_jax.data.settings import DataSettings

SETTINGS = DataSettings(
    canvas=64,
    max_instances=3,
    short_sides=(48, 64),
    max_side=96,
    buckets=((64, 96), (96, 64)),
    test_short_side=48,
    workers=2,
)


@pytest.fixture
def dataset(tiny, tmp_path):
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data")
    return prepared.load("tiny", tmp_path / "data")


def take(stream, count):
    return [next(stream) for _ in range(count)]


def fields(batch):
    return {name: np.asarray(getattr(batch, name)) for name in batch.__dataclass_fields__}


def test_a_batch_holds_original_pixels_and_padded_instances(dataset, tmp_path):
    for bucket, batch in take(train_batches(dataset, SETTINGS, batch_size=2, seed=0), 4):
        assert bucket in SETTINGS.buckets
        assert batch.image.shape == (2, 64, 64, 3) and batch.image.dtype == np.uint8
        assert batch.masks.shape == (2, 3, 112, 14) and batch.boxes.shape == (2, 3, 4)
        for row, image_id in enumerate(batch.image_id):
            picture = cv2.imread(str(tmp_path / "images" / "train2017" / f"{image_id:012d}.jpg"))[..., ::-1]
            height, width = batch.source_hw[row]
            assert picture.shape[:2] == (height, width)
            assert np.abs(batch.image[row, :height, :width].astype(int) - picture).max() <= 2
            assert not batch.image[row, height:].any() and not batch.image[row, :, width:].any()
            assert batch.valid[row].sum() == {1: 2, 2: 1, 4: 1}[int(image_id)]


def test_starting_at_a_step_continues_the_stream(dataset):
    whole = take(train_batches(dataset, SETTINGS, batch_size=2, seed=3), 9)
    rest = take(train_batches(dataset, SETTINGS, batch_size=2, seed=3, start_step=5), 4)
    for (bucket_a, a), (bucket_b, b) in zip(whole[5:], rest, strict=True):
        assert bucket_a == bucket_b
        for name, value in fields(a).items():
            np.testing.assert_array_equal(value, fields(b)[name], err_msg=name)


def test_processes_share_each_global_batch(dataset):
    whole = take(train_batches(dataset, SETTINGS, batch_size=2, seed=0), 3)
    halves = [
        take(train_batches(dataset, SETTINGS, batch_size=2, seed=0, process_index=i, process_count=2), 3)
        for i in range(2)
    ]
    for (bucket, batch), *parts in zip(whole, *halves, strict=True):
        assert all(part[0] == bucket for part in parts)
        np.testing.assert_array_equal(batch.image_id, np.concatenate([p.image_id for _, p in parts]))


def test_evaluation_ends_and_marks_the_rows_that_fill_up(dataset):
    batches = list(eval_batches(dataset, SETTINGS, batch_size=3))
    ids = np.concatenate([b.image_id for _, b in batches])
    np.testing.assert_array_equal(np.sort(ids[ids != NO_IMAGE]), [1, 2, 3, 4])
    assert (ids == NO_IMAGE).sum() == len(ids) - 4 > 0
    for _, batch in batches:
        assert not batch.valid[batch.image_id == NO_IMAGE].any() and not batch.flip.any()


def test_instances_beyond_the_limit_are_counted_in_the_log(dataset, caplog):
    narrow = dataclasses.replace(SETTINGS, max_instances=1)
    take(train_batches(dataset, narrow, batch_size=3, seed=0), 2)
    assert "data.max_instances=1: 1 instance left out" in caplog.text


def test_images_larger_than_the_canvas_are_fitted_with_their_boxes(dataset):
    small = dataclasses.replace(SETTINGS, canvas=32)
    _, batch = next(eval_batches(dataset, small, batch_size=4))
    row = int(np.flatnonzero(batch.image_id == 1)[0])
    np.testing.assert_array_equal(batch.source_hw[row], [24, 32])
    np.testing.assert_allclose(batch.boxes[row, 0], [2, 3, 12, 11])
    assert batch.target_hw[row].tolist() == [48, 64]


def test_the_stream_does_not_depend_on_the_workers(dataset):
    one, four = (
        take(train_batches(dataset, dataclasses.replace(SETTINGS, workers=n), batch_size=2, seed=1), 8) for n in (1, 4)
    )
    for (bucket_a, a), (bucket_b, b) in zip(one, four, strict=True):
        assert bucket_a == bucket_b
        for name, value in fields(a).items():
            np.testing.assert_array_equal(value, fields(b)[name], err_msg=name)


def test_buckets_too_small_for_the_images_are_refused_before_anything_is_read(dataset):
    small = dataclasses.replace(SETTINGS, buckets=((64, 64),))
    for call in (
        lambda: train_batches(dataset, small, batch_size=2, seed=0),
        lambda: epoch_length(dataset, small, 2),
    ):
        with pytest.raises(WrongSetting, match="data.buckets: none of the padded shapes .* add one or lower"):
            call()


def test_a_damaged_record_stops_the_stream_with_the_images_name(dataset, monkeypatch):
    def read(self, index):
        if index == 1:
            raise UnreadableRecord(f"record {index} (image 2)")
        return whole(self, index)

    whole = type(dataset).read
    monkeypatch.setattr(type(dataset), "read", read)
    with pytest.raises(UnreadableRecord, match="image 2"):
        list(eval_batches(dataset, SETTINGS, batch_size=1))


def test_real_photos_prepare_without_loss(shared, tmp_path):
    folder = shared / "data" / "lvis_mini_dev"
    report = builder.prepare(folder / "lvis_mini_dev_val.json", folder / "images", "val", tmp_path)
    content = json.loads((folder / "lvis_mini_dev_val.json").read_text())
    assert report["images"] == len(content["images"]) == 24
    assert report["skipped"] == {} and report["instances"] == len(content["annotations"])
