"""Storage that fails, and remote folders, by a stand-in for the remote storage."""

import inspect
import os

import pytest
from etils.epath import backend, gpath

from c2am_jax.data import builder, prepared, shards
from c2am_jax.errors import UserError


class Bucket(backend._OsPathBackend):
    """Local files under gs:// names."""

    def __init__(self, root):
        self.root, self.down = root, False

    def where(self, path):
        if self.down:
            from c2am_jax.data.tensorflow_host import tf

            raise tf.errors.UnavailableError(None, None, "no route to the bucket\nat all")
        return str(path).replace("gs:/", str(self.root)) if str(path).startswith("gs:/") else path


def _translated(name):
    method = getattr(backend._OsPathBackend, name)

    def call(self, *arguments, **options):
        parameters = list(inspect.signature(method).parameters)[1 : 1 + len(arguments)]
        places = {"path", "path1", "path2", "src", "dst", "top", "pattern"}
        moved = [self.where(a) if p in places else a for p, a in zip(parameters, arguments, strict=True)]
        found = method(self, *moved, **options)
        return [f.replace(str(self.root), "gs:/") for f in found] if name == "glob" else found

    return call


for _name in "open exists isdir listdir glob makedirs mkdir rmtree remove rename replace copy stat".split():
    setattr(Bucket, _name, _translated(_name))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    bucket = Bucket(tmp_path / "remote")
    monkeypatch.setattr(gpath._GPath, "_backend", property(lambda self: bucket))
    return bucket


def test_remote_folders_give_the_records_of_local_ones(tiny, tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    annotations, images = tiny[1]()
    (tmp_path / "remote").mkdir()
    annotations.rename(tmp_path / "remote" / "a.json")
    images.rename(tmp_path / "remote" / "images")
    remote = builder.prepare("gs://a.json", "gs://images", "tiny", "gs://data", workers=1)
    assert remote["annotations"] == "gs://a.json" and remote["image_folder"] == "gs://images"
    local = builder.prepare(tmp_path / "remote/a.json", tmp_path / "remote/images", "tiny", tmp_path / "d", workers=1)
    assert {**remote, "annotations": "", "image_folder": ""} == {**local, "annotations": "", "image_folder": ""}
    for path in prepared.folder_of("tiny", tmp_path / "d").iterdir():
        if "record-" in path.name or path.name in ("annotations.json", "features.json", "index.npz"):
            copy = tmp_path / "remote/data" / path.relative_to(tmp_path / "d")
            assert copy.read_bytes() == path.read_bytes(), path.name
    assert not list((tmp_path / "remote").rglob("*partial*"))
    with pytest.raises(UserError, match="gs://data/lvis_layout/tiny/1.1.0: records are read from local folders only"):
        prepared.load("tiny", "gs://data")


def test_remote_storage_that_fails_is_one_line(tiny, tmp_path, bucket):
    annotations, images = tiny[1]()
    with pytest.raises(UserError, match="gs://none.json: no such file"):
        builder.prepare("gs://none.json", images, "tiny", tmp_path / "d")
    bucket.down = True
    with pytest.raises(UserError, match="d: remote storage: no route to the bucket$"):
        builder.prepare(annotations, "gs://images", "tiny", tmp_path / "d")


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
