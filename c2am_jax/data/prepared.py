"""A prepared data set: where it is, and its records with random access; `builder` writes it."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from c2am_jax.data import lvis, shards
from c2am_jax.data.cached import local_copy
from c2am_jax.data.json_stream import open_json
from c2am_jax.data.shards import NO_MASKS
from c2am_jax.data.skipped import NEEDS_MASKS, Skipped
from c2am_jax.errors import UserError
from c2am_jax.files import as_path, is_remote
from c2am_jax.storage import storage_errors

VERSION = "1.1.0"  # of the records and what stands beside them


class PreparationError(UserError, FileNotFoundError):
    """Nothing prepared, or nothing to prepare from; the text names the place and the fix."""


class UnreadableRecord(UserError):
    """A record that storage damaged after its preparation; the text names the image."""


def folder_of(name: str, data_dir: str | os.PathLike) -> epath.Path:
    """Where `prepare` puts the records of a data set."""
    return epath.Path(as_path(data_dir)) / shards.DATASET / name / VERSION


def is_prepared(name: str, data_dir: str | os.PathLike) -> bool:
    """Whether a finished preparation is there."""
    with storage_errors(data_dir):
        return (folder_of(name, data_dir) / "report.json").is_file()


def nothing_trains(annotations: str, skipped: Skipped) -> str:
    """Why no image of a json can train, for a message: what was left out of it."""
    left_out = [skipped.told()] if skipped.counts else []
    left_out += [NEEDS_MASKS] if NO_MASKS in skipped.counts else []
    why = "; ".join(["", *left_out])
    return f"{annotations}: no image is 32 pixels wide and high and has an annotation to train on{why}"


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Records with random access and their index: N images, ragged labels.

    Attributes:
      name: of the data set.
      folder: where its files are.
      categories: row k is class k.
      image_id: int64 [N].
      image_hw: int32 [N, 2].
      label: classes of all instances, image by image; image i has label[label_offset[i]:label_offset[i + 1]].
      label_offset: int64 [N + 1].
      record: int64 [N], the number of each image's record; None: its own number.
    """

    name: str
    folder: Path
    categories: lvis.CategoryTable
    image_id: np.ndarray
    image_hw: np.ndarray
    label: np.ndarray
    label_offset: np.ndarray
    record: np.ndarray | None = None

    def __len__(self) -> int:
        """How many images it has, N."""
        return len(self.image_id)

    @property
    def annotations_path(self) -> Path:
        """The json that the evaluator reads."""
        return self.folder / "annotations.json"

    @property
    def nothing_trains(self) -> str:
        """Why no image can train, for a message: what preparation left out of the user's file."""
        report = json.loads((self.folder / "report.json").read_text())
        return nothing_trains(report["annotations"], Skipped(report["skipped"], report["skipped_entries"]))

    @property
    def warnings(self) -> list[str]:
        """What to know before it is evaluated, a line each: that the user's file has no object to score."""
        report = json.loads((self.folder / "report.json").read_text())
        told = report.get("nothing_to_score")  # older reports do not tell
        return [f"warning: {told}"] if told else []

    def labels_of(self, index: int) -> np.ndarray:
        """Classes of the instances of image `index`."""
        return self.label[self.label_offset[index] : self.label_offset[index + 1]]

    def of_images(self, ids: Collection[int]) -> "PreparedDataset":
        """The images with these ids alone."""
        chosen = np.flatnonzero(np.isin(self.image_id, np.array(sorted(ids), np.int64)))
        labels = [self.labels_of(i) for i in chosen]
        return dataclasses.replace(
            self,
            image_id=self.image_id[chosen],
            image_hw=self.image_hw[chosen],
            label=np.concatenate([*labels, self.label[:0]]),
            label_offset=np.cumsum([0, *map(len, labels)]),
            record=chosen if self.record is None else self.record[chosen],
        )

    @functools.cached_property
    def _source(self):
        method = tfds.decode.DeserializeMethod.RAW_BYTES
        records = tfds.builder_from_directory(self.folder)
        return records.as_data_source(split=shards.SPLIT, deserialize_method=method)  # pyright: ignore[reportCallIssue]

    def read(self, index: int) -> bytes:
        """The serialised record of image `index`. Raises UnreadableRecord if the disk holds other bytes by now."""
        number = int(index if self.record is None else self.record[index])
        try:
            return self._source[number]
        except RuntimeError as error:  # ArrayRecord's checksums
            name = f"record {number} (image {self.image_id[index]})"
            raise UnreadableRecord(f"{self.folder}: {name}: {error}; delete the folder to prepare it again") from None


def load(name: str, data_dir: str | os.PathLike, *, annotations: str | os.PathLike = "") -> PreparedDataset:
    """Open a prepared data set; `annotations`, if given, must be the file it was prepared from.

    Of a remote one the files are copied to this machine first (`cached.local_copy`).

    Raises:
      PreparationError: nothing (finished) is there.
      AnnotationError: it was prepared from another annotation file.
      StorageError: a remote one cannot be copied.
    """
    place = folder_of(name, data_dir)
    if not is_prepared(name, data_dir):
        raise PreparationError(f"{place}: no finished data set; prepare it with python -m c2am_jax.data.prepare")
    folder = local_copy(os.fspath(place), name) if is_remote(data_dir) else Path(place)
    report = json.loads((folder / "report.json").read_text())
    if annotations and digest(annotations) != report["annotations_sha256"]:
        raise lvis.AnnotationError(
            f"{folder} was prepared from another file than {annotations}: delete that folder to prepare it again, or "
            "choose another data.name"
        )
    categories = lvis.category_table(lvis.read_json(folder / "categories.json"))
    with np.load(folder / "index.npz") as index:
        return PreparedDataset(name, folder, categories, **{key: index[key] for key in index.files})


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a json's bytes, as a report has it. Raises AnnotationError if it is not there."""
    with open_json(os.fspath(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
