"""LVIS json + JPEGs -> TFDS records (ArrayRecord, random access), with an index beside them.

A prepared folder holds the records, `index.npz` (what samplers need of every image), `categories.json`,
`annotations.json` (for the evaluator) and `report.json` (what was kept and skipped, and why), written last: without
it the folder is unfinished.
"""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from c2am_jax.data import lvis
from c2am_jax.data.jpeg import check_jpeg
from c2am_jax.data.masks import MASK_SIZE, BadMask, box_frame, pack, rasterise
from c2am_jax.data.tensorflow_host import tf, tfds
from c2am_jax.errors import UserError

_LOG = logging.getLogger(__name__)
SPLIT = "data"
MIN_SIDE = 1.0  # reference rule: boxes narrower or lower than a pixel do not train


class PreparationError(UserError, FileNotFoundError):
    """Nothing prepared, or nothing to prepare from; the text names the place and the mend."""


class UnreadableRecord(UserError):
    """A record that storage damaged after its preparation; the text names the image."""


@dataclasses.dataclass(kw_only=True)
class _Source(tfds.core.BuilderConfig):
    annotations: str = ""
    images: str = ""


class _LvisLayout(tfds.core.GeneratorBasedBuilder):
    """Records of one LVIS-layout json; example i is image i of the index."""

    name = "lvis_layout"
    VERSION = tfds.core.Version("1.1.0")
    pkg_dir_path = tfds.core.Path(__file__).parent

    def __init__(self, **options):
        """As any TFDS builder; `found` must be set before, `index` and `skipped` fill up while examples are made."""
        self.found: lvis.Annotations | None = None
        self.skipped = collections.defaultdict(list)
        self.index = []
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        instance = {
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "label": tfds.features.Scalar(np.int32),
            "mask": tfds.features.Tensor(shape=(MASK_SIZE, MASK_SIZE // 8), dtype=np.uint8, encoding="bytes"),
        }
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "image_id": tfds.features.Scalar(np.int64),
            "height": tfds.features.Scalar(np.int32),
            "width": tfds.features.Scalar(np.int32),
            "instances": tfds.features.Sequence(instance),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        source = self.builder_config
        assert self.found is not None
        class_of = self.found.categories.class_of
        for image in tqdm(self.found.images, desc=f"prepare {source.name}", unit="image", disable=None):
            try:
                content = lvis.image_file(image, source.images).read_bytes()
                check_jpeg(content, (image["height"], image["width"]))
            except FileNotFoundError as error:
                self.skipped["image file missing"].append(str(error))
                continue
            except (OSError, ValueError) as error:
                self.skipped["image file broken"].append(f"image {image['id']}: {error}")
                continue
            instances = list(self._instances(image, class_of))
            self.index.append((image["id"], image["height"], image["width"], [i["label"] for i in instances]))
            yield (
                len(self.index) - 1,
                {
                    "image": io.BytesIO(content),
                    "image_id": image["id"],
                    "height": image["height"],
                    "width": image["width"],
                    "instances": instances,
                },
            )

    def _instances(self, image, class_of) -> Iterator[dict[str, Any]]:
        hw = image["height"], image["width"]
        for annotation in self.found.by_image.get(image["id"], ()):
            name = f"annotation {annotation['id']} of image {image['id']}"
            try:
                box = _box(annotation["bbox"], hw)
                raster = rasterise(annotation["segmentation"], hw)
                if not raster.any():
                    raise BadMask("mask lies outside the image")
            except (TypeError, ValueError, OverflowError) as error:  # BadMask, or what pycocotools says to non-numbers
                self.skipped["annotation dropped"].append(f"{name}: {error}")
                continue
            yield {
                "box": box,
                "label": class_of[annotation["category_id"]],
                "mask": pack(box_frame(raster, box)),
            }


def _box(xywh: list[float], hw: tuple[int, int]) -> np.ndarray:
    """Xyxy clipped to the image; BadMask for what the reference's filter drops."""
    x, y, w, h = (float(v) for v in xywh)
    if not np.isfinite([x, y, w, h]).all():
        raise BadMask("box with a non-finite number")
    box = np.array([max(x, 0), max(y, 0), min(x + w, hw[1]), min(y + h, hw[0])], np.float32)
    if w < MIN_SIDE or h < MIN_SIDE or (box[2:] - box[:2] <= 0).any():
        raise BadMask("box of zero size or outside the image")
    return box


def _digest(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _builder(name: str, data_dir: str | os.PathLike, annotations: str = "", images: str = "") -> _LvisLayout:
    source = _Source(name=name, annotations=str(annotations), images=str(images))
    return _LvisLayout(config=source, data_dir=str(data_dir), file_format="array_record")


def folder_of(name: str, data_dir: str | os.PathLike) -> Path:
    """Where `prepare` puts the records of a data set."""
    return Path(data_dir) / _LvisLayout.name / name / str(_LvisLayout.VERSION)


def is_prepared(name: str, data_dir: str | os.PathLike) -> bool:
    """Whether a finished preparation is there."""
    return (folder_of(name, data_dir) / "report.json").is_file()


@contextlib.contextmanager
def turns(name: str, data_dir: str | os.PathLike) -> Iterator[None]:
    """Processes of one machine that write the same data set take turns."""
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(data_dir) / f".{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    name: str,
    data_dir: str | os.PathLike,
    *,
    replace: bool = True,
) -> dict[str, Any]:
    """Write records, index and report of one LVIS-layout json; returns the report.

    Images whose file is missing, broken or of another size and annotations that the reference's filter drops are
    skipped, counted and listed in `report.json`. An interrupted preparation starts anew. Unless `replace`, a finished
    one is left as it is, also one that another process finished while this one waited for its turn.

    Raises:
      AnnotationError: the json is not usable.
      PreparationError: no folder `images`, or not one of the images is in it, or a name that is no folder name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise PreparationError(f"{name!r} is no name of a data set: letters, digits, '_', '-' and '.' only")
    if not Path(images).is_dir():
        raise PreparationError(f"{images}: no such folder of images")
    found = lvis.read_annotations(annotations)  # before anything is written
    folder = folder_of(name, data_dir)
    with turns(name, data_dir):
        if is_prepared(name, data_dir) and not replace:
            return json.loads((folder / "report.json").read_text())
        for old in (folder, *folder.parent.glob(f"incomplete.*_{folder.name}")):  # the latter of a killed preparation
            shutil.rmtree(old, ignore_errors=True)
        builder = _builder(name, data_dir, str(annotations), str(images))
        builder.found = found
        _write_records(builder)
        return _write_index(builder, folder)


def _write_records(builder: _LvisLayout) -> None:
    source = builder.builder_config
    assert builder.found is not None
    if not builder.found.images:
        raise PreparationError(f"{source.annotations}: the list 'images' is empty")
    try:
        # Nothing is downloaded, TFDS wants the folder; and it prints about downloads.
        with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format="array_record", download_dir=downloads)
    except AssertionError:  # TFDS refuses to write a split without examples
        if builder.index or not builder.skipped:
            raise
        first = next(iter(builder.skipped.values()))[0]
        text = f"{source.annotations}: not one of its images is usable in {source.images}: {first}"
        raise PreparationError(text) from None


def _write_index(builder: _LvisLayout, folder: Path) -> dict[str, Any]:
    """What stands beside the records; the report last and at once, because it says that all is there."""
    source, found, index = builder.builder_config, builder.found, builder.index
    assert found is not None
    counts = {reason: len(entries) for reason, entries in builder.skipped.items()}
    for reason, count in counts.items():
        _LOG.warning("%s: %s: %d, for example: %s", source.name, reason, count, builder.skipped[reason][0])
    lengths = [len(labels) for _, _, _, labels in index]
    np.savez(
        folder / "index.npz",
        image_id=np.array([i for i, _, _, _ in index], np.int64),
        image_hw=np.array([(h, w) for _, h, w, _ in index], np.int32),
        label=np.array([label for _, _, _, labels in index for label in labels], np.int32),
        label_offset=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    shutil.copyfile(source.annotations, folder / "annotations.json")
    (folder / "categories.json").write_text(json.dumps(found.categories.as_dicts()))
    report = {
        "annotations": source.annotations,
        "annotations_sha256": _digest(folder / "annotations.json"),
        "image_folder": source.images,
        "images": len(index),
        "images_without_annotations": lengths.count(0),
        "instances": int(sum(lengths)),
        "categories": {g: len(found.categories.group(g)) for g in lvis.FREQUENCIES},
        "skipped": counts,
        "skipped_entries": builder.skipped,
    }
    partial = folder / "report.json.partial"
    partial.write_text(json.dumps(report, indent=1))
    partial.replace(folder / "report.json")
    return report


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
    """

    name: str
    folder: Path
    categories: lvis.CategoryTable
    image_id: np.ndarray
    image_hw: np.ndarray
    label: np.ndarray
    label_offset: np.ndarray

    def __len__(self) -> int:
        """N."""
        return len(self.image_id)

    @property
    def annotations_path(self) -> Path:
        """The LVIS json that the evaluator reads."""
        return self.folder / "annotations.json"

    def labels_of(self, index: int) -> np.ndarray:
        """Classes of the instances of image `index`."""
        return self.label[self.label_offset[index] : self.label_offset[index + 1]]

    @functools.cached_property
    def _builder(self) -> _LvisLayout:
        data_dir = self.folder.parent.parent.parent
        return _builder(self.name, data_dir)

    @functools.cached_property
    def _source(self):
        method = tfds.decode.DeserializeMethod.RAW_BYTES
        return self._builder.as_data_source(split=SPLIT, deserialize_method=method)  # pyright: ignore[reportCallIssue]

    def read(self, index: int) -> bytes:
        """The serialised record of image `index`. Raises UnreadableRecord if the disk holds other bytes by now."""
        try:
            return self._source[int(index)]
        except RuntimeError as error:  # ArrayRecord's checksums
            name = f"record {int(index)} (image {self.image_id[index]})"
            raise UnreadableRecord(f"{self.folder}: {name}: {error}; delete the folder to prepare it anew") from None

    def parse(self, record: tf.Tensor) -> Any:
        """A record as tensors; "image" stays JPEG bytes (graph mode)."""
        features = self._builder.info.features
        assert features is not None
        return features.deserialize_example(record, decoders={"image": tfds.decode.SkipDecoding()})


def load(name: str, data_dir: str | os.PathLike, *, annotations: str | os.PathLike = "") -> PreparedDataset:
    """Open a prepared data set; `annotations`, if given, must be the file it was prepared from.

    Raises:
      PreparationError: nothing (finished) is there.
      AnnotationError: it was prepared from another annotation file.
    """
    folder = folder_of(name, data_dir)
    if not is_prepared(name, data_dir):
        raise PreparationError(f"{folder}: no finished data set; prepare it with python -m c2am_jax.data.prepare")
    report = json.loads((folder / "report.json").read_text())
    if annotations and _digest(annotations) != report["annotations_sha256"]:
        raise lvis.AnnotationError(
            f"{folder} was prepared from another file than {annotations}: delete that folder to prepare it again, or "
            "choose another data.name"
        )
    categories = lvis.category_table(lvis.read_json(folder / "categories.json"))
    with np.load(folder / "index.npz") as index:
        return PreparedDataset(name, folder, categories, **{key: index[key] for key in index.files})
