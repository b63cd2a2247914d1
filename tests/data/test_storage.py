"""Preparation from and into a bucket, and storage that fails."""

import os

import pytest

from c2am_jax.data import builder, prepared, shards
from c2am_jax.errors import UserError


def test_remote_folders_give_the_records_of_local_ones(tiny, tmp_path, emulator, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    annotations, images = tiny[1]()
    emulator.upload(images, "images")
    emulator.buckets["pods"].put("a.json", annotations.read_bytes())
    remote = builder.prepare("gs://pods/a.json", "gs://pods/images", "tiny", "gs://pods/data", workers=2)
    assert remote["annotations"] == "gs://pods/a.json" and remote["image_folder"] == "gs://pods/images"
    local = builder.prepare(annotations, images, "tiny", tmp_path / "d", workers=1)
    assert {**remote, "annotations": "", "image_folder": ""} == {**local, "annotations": "", "image_folder": ""}
    own = prepared.folder_of("tiny", tmp_path / "d")
    for path in own.iterdir():
        if "record-" in path.name or path.name in ("annotations.json", "features.json", "index.npz"):
            assert emulator.content(f"data/{path.relative_to(tmp_path / 'd')}") == path.read_bytes(), path.name
    assert sorted(p.name for p in own.iterdir()) == [name.rpartition("/")[2] for name in emulator.names("data/")]
    found, expected = prepared.load("tiny", "gs://pods/data"), prepared.load("tiny", tmp_path / "d")
    assert [found.read(i) for i in range(len(found))] == [expected.read(i) for i in range(len(expected))]


def test_remote_storage_that_fails_is_one_line(tiny, tmp_path, emulator):
    annotations, images = tiny[1]()
    with pytest.raises(UserError, match="gs://pods/none.json: no such file"):
        builder.prepare("gs://pods/none.json", images, "tiny", tmp_path / "d")
    with pytest.raises(UserError, match="gs://nobody/images: there is no bucket nobody: correct the address, or make"):
        builder.prepare(annotations, "gs://nobody/images", "tiny", tmp_path / "d")
    with pytest.raises(UserError, match="gs://pods/data/lvis_layout/other/.*: no finished data set; prepare it"):
        prepared.load("other", "gs://pods/data")


def test_a_full_disk_is_one_line_and_a_later_start_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    arguments = (*tiny[1](), "tiny", tmp_path / "d")
    writer, opened = shards.array_record_module.ArrayRecordWriter, []

    def full(path, options):
        opened.append(path)
        return writer(path if len(opened) == 1 else "/dev/full", options)

    monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", full)
    with pytest.raises(UserError, match="tiny/1.1.0: .*No space left"):
        builder.prepare(*arguments, workers=1)
    monkeypatch.undo()
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    done = prepared.folder_of("tiny", tmp_path / "d") / "lvis_layout-data.array_record-00000-of-00002"
    stamp = os.stat(done).st_mtime_ns
    assert builder.prepare(*arguments, workers=1)["images"] == 4
    assert os.stat(done).st_mtime_ns == stamp  # not made again


def test_a_folder_that_cannot_be_is_one_line(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file.*: (Not a directory|File exists)"):
        builder.prepare(*tiny[1](), "tiny", tmp_path / "file")
