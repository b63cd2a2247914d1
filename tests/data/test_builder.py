"""Preparation: what is kept, what is skipped and counted, and that records come back."""

import json

import numpy as np
import pytest
from pictures import jpeg_of

from c2am_jax.data import builder, prepare
from c2am_jax.data.lvis import AnnotationError


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


def test_the_command_reports_and_names_wrong_input(tiny, tmp_path, capsys):
    annotations, images = tiny[1]()
    options = ["--annotations", str(annotations), "--images", str(images), "--name", "t", "--out", str(tmp_path / "d")]
    assert prepare.main(options) == 0
    printed = capsys.readouterr().out
    assert "t: 4 images, 4 instances" in printed and "1 rare, 1 common, 1 frequent" in printed
    options[1] = str(tmp_path / "none.json")
    assert prepare.main(options) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_a_file_that_only_calls_itself_jpeg_is_skipped(tiny, tmp_path):
    (tmp_path / "images" / "train2017" / "000000000001.jpg").write_bytes(jpeg_of((48, 64), kind="PNG"))
    report, _ = prepared(tiny, tmp_path)
    assert report["skipped"] == {"image file broken": 1}
