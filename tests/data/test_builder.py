"""Preparation: what is kept, what is skipped and counted, and that records come back."""

import fcntl
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from pictures import jpeg_of
from PIL import Image

from c2am_jax.data import builder
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.errors import UserError


def prepared(tiny, tmp_path, name="tiny"):
    annotations, images = tiny[1]()
    report = builder.prepare(annotations, images, name, tmp_path / "data")
    return report, builder.load(name, tmp_path / "data")


def test_records_hold_the_original_jpeg_and_the_instances(tiny, tmp_path):
    report, dataset = prepared(tiny, tmp_path)
    assert (report["images"], report["instances"], report["skipped"]) == (4, 4, {})
    np.testing.assert_array_equal(dataset.image_id, [1, 2, 3, 4])
    np.testing.assert_array_equal(dataset.image_hw, [(48, 64), (64, 48), (40, 40), (64, 64)])
    assert [dataset.labels_of(i).tolist() for i in range(4)] == [[2, 0], [1], [], [1]]
    record = dataset.parse(dataset.read(0))
    assert record["image"].numpy() == (tmp_path / "images" / "train2017" / "000000000001.jpg").read_bytes()
    np.testing.assert_allclose(record["instances"]["box"][0], [4, 6, 24, 22])
    assert np.unpackbits(record["instances"]["mask"][0].numpy(), axis=-1).all()


def test_bad_images_and_annotations_are_skipped_counted_and_listed(tiny, tmp_path):
    content, _ = tiny
    folder = tmp_path / "images" / "train2017"
    (folder / "000000000002.jpg").write_bytes((folder / "000000000002.jpg").read_bytes()[:-200])
    (folder / "000000000003.jpg").unlink()
    content["images"][3]["width"] = 65
    content["annotations"][0]["bbox"] = [4.0, 6.0, 0.0, 16.0]
    content["annotations"][1]["segmentation"] = [[500.0, 500.0, 510.0, 500.0, 510.0, 510.0]]
    report, dataset = prepared(tiny, tmp_path)
    assert report["skipped"] == {"image file missing": 1, "image file broken": 2, "annotation dropped": 2}
    listed = json.dumps(report["skipped_entries"])
    for named in ("image 2", "image 3", "image 4", "the json says", "annotation 1", "annotation 2"):
        assert named in listed
    np.testing.assert_array_equal(dataset.image_id, [1])
    assert len(dataset.labels_of(0)) == 0


def test_nothing_usable_is_an_error_that_names_an_image(tiny, tmp_path):
    annotations, images = tiny[1]()
    for file in (images / "train2017").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="not one of its images.*image 1"):
        builder.prepare(annotations, images, "tiny", tmp_path / "data")
    assert not builder.is_prepared("tiny", tmp_path / "data")


def test_records_of_another_file_are_refused(tiny, tmp_path):
    content, write = tiny
    prepared(tiny, tmp_path)
    content["annotations"].pop()
    with pytest.raises(AnnotationError, match="was prepared from another file"):
        builder.load("tiny", tmp_path / "data", annotations=write()[0])


def test_an_unfinished_preparation_does_not_open(tiny, tmp_path):
    prepared(tiny, tmp_path)
    (builder.folder_of("tiny", tmp_path / "data") / "report.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        builder.load("tiny", tmp_path / "data")


def test_a_file_that_only_calls_itself_jpeg_is_skipped(tiny, tmp_path):
    (tmp_path / "images" / "train2017" / "000000000001.jpg").write_bytes(jpeg_of((48, 64), kind="PNG"))
    report, _ = prepared(tiny, tmp_path)
    assert report["skipped"] == {"image file broken": 1}


def test_a_cameras_picture_with_a_second_one_inside_is_a_jpeg(tiny, tmp_path):
    path = tmp_path / "images" / "train2017" / "000000000001.jpg"
    stream = io.BytesIO()
    picture = Image.open(path)
    picture.save(stream, "MPO", save_all=True, append_images=[picture])
    assert Image.open(io.BytesIO(stream.getvalue())).format == "MPO"
    path.write_bytes(stream.getvalue())
    report, dataset = prepared(tiny, tmp_path)
    assert report["skipped"] == {} and dataset.parse(dataset.read(0))["image"].numpy() == stream.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_too_large_to_decode_is_skipped(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)  # stands in for the bomb limit of 179 Mpx
    report, _ = prepared(tiny, tmp_path)
    assert (
        report["skipped"] == {"image file broken": 1} and "image 4" in report["skipped_entries"]["image file broken"][0]
    )


@pytest.mark.parametrize(
    "segmentation",
    [[[1.0, 2.0, "three", 4.0, 5.0, 6.0]], [1, 2, 3, 4, 5, 6], [None], {"size": [48, 64], "counts": [-3, 3075]}, "x"],
)
def test_segmentations_that_are_no_numbers_are_dropped_by_name(tiny, tmp_path, segmentation):
    tiny[0]["annotations"][0]["segmentation"] = segmentation
    report, dataset = prepared(tiny, tmp_path)
    assert report["skipped"] == {"annotation dropped": 1} and len(dataset.labels_of(0)) == 1
    assert "annotation 1 of image 1" in report["skipped_entries"]["annotation dropped"][0]


def test_images_without_annotations_are_kept_and_counted(tiny, tmp_path):
    report, dataset = prepared(tiny, tmp_path)
    assert report["images_without_annotations"] == 1 and len(dataset) == 4


def test_a_record_damaged_after_preparation_is_named_and_never_read_wrongly(tiny, tmp_path):
    _, dataset = prepared(tiny, tmp_path)
    records = [dataset.read(i) for i in range(4)]
    (shard,) = dataset.folder.glob("*array_record*")
    content, named = shard.read_bytes(), set()
    for at in range(200, len(content) // 20, 500):  # the rest of the small file is padding
        shard.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        damaged = builder.load("tiny", tmp_path / "data")
        for i, record in enumerate(records):
            try:
                assert damaged.read(i) == record
            except builder.UnreadableRecord as error:
                assert f"record {i} (image {i + 1})" in str(error)
                named.add(i)
    assert named


START_PREPARING = """
import sys, time
from c2am_jax.data import builder
box = builder.box_frame
builder.box_frame = lambda *a: print("writing", file=sys.__stdout__, flush=True) or time.sleep(60) or box(*a)
builder.prepare(*sys.argv[1:])
"""


def test_a_killed_preparation_starts_anew_and_leaves_nothing(tiny, tmp_path):
    annotations, images = tiny[1]()
    arguments = [str(annotations), str(images), "tiny", str(tmp_path / "data")]
    command = [sys.executable, "-c", START_PREPARING, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    folder = builder.folder_of("tiny", tmp_path / "data")
    assert list(folder.parent.iterdir()) and not builder.is_prepared("tiny", tmp_path / "data")
    report, _ = prepared(tiny, tmp_path)
    assert report["images"] == 4 and [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_records_without_their_index_are_not_a_data_set(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_write_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepared(tiny, tmp_path)
    assert builder.folder_of("tiny", tmp_path / "data").is_dir() and not builder.is_prepared("tiny", tmp_path / "data")


def test_what_another_process_finished_is_left_alone_unless_it_is_to_be_replaced(tiny, tmp_path):
    prepared(tiny, tmp_path)
    stamp = builder.folder_of("tiny", tmp_path / "data") / "report.json"
    before = stamp.stat().st_mtime_ns
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data", replace=False)
    assert stamp.stat().st_mtime_ns == before
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data")
    assert stamp.stat().st_mtime_ns > before


def test_writers_of_one_data_set_take_turns(tmp_path):
    with builder.turns("tiny", tmp_path), builder.turns("other", tmp_path):
        (lock,) = tmp_path.glob("*tiny*")
        with open(lock) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_names_that_are_no_folder_names_and_empty_files_are_refused(tiny, tmp_path):
    content, write = tiny
    for name in ("../up", "a/b", "", ".hidden"):
        with pytest.raises(UserError, match="no name of a data set"):
            builder.prepare(*write(), name, tmp_path / "data")
    content["images"], content["annotations"] = [], []
    with pytest.raises(UserError, match="'images' is empty"):
        builder.prepare(*write(), "tiny", tmp_path / "data")


def test_records_keep_the_order_of_the_index_over_several_shards(tiny, tmp_path, monkeypatch):
    whole = builder._LvisLayout.download_and_prepare
    three = builder.tfds.download.DownloadConfig(num_shards=3)
    monkeypatch.setattr(
        builder._LvisLayout, "download_and_prepare", lambda self, **o: whole(self, download_config=three, **o)
    )
    _, dataset = prepared(tiny, tmp_path)
    assert len(list(dataset.folder.glob("*array_record*"))) == 3
    read = [int(dataset.parse(dataset.read(i))["image_id"]) for i in range(4)]
    np.testing.assert_array_equal(read, dataset.image_id)
