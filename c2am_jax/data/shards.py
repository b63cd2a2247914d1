"""One shard of records after the other, each a function of its part of the json and of the image files.

Processes share nothing but a counter. A finished shard has its summary beside it in `parts/`, so that an interrupted
preparation resumes where it was; the bytes of a shard do not depend on who writes it. No TensorFlow is imported here
(unless a JPEG asks for it): a worker takes about 100 MB.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, BinaryIO

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath

from c2am_jax.data.box_masks import MASK_SIZE, BadMask, mask_of_runs, pack, runs_and_box
from c2am_jax.data.boxes import FITS, BoxCounts, iou, suspicion, trainable_box
from c2am_jax.data.cluster import run_on_cluster
from c2am_jax.data.entries import has_mask
from c2am_jax.data.jpeg import ImageFault, check_size
from c2am_jax.data.json_stream import open_json
from c2am_jax.data.lvis import AnnotationError, ImageNotFound, find_image
from c2am_jax.data.pictures import Stored, stored
from c2am_jax.data.scanned import ImageEntry, Scan
from c2am_jax.data.skipped import Skipped
from c2am_jax.errors import UserError
from c2am_jax.files import as_path, is_remote, replace_text
from c2am_jax.processes import CONTEXT, WorkerPool
from c2am_jax.progress import Counter
from c2am_jax.storage import StorageError, storage_errors

IMAGES_PER_SHARD = 2500  # LVIS v1 train: 41 shards of some 500 MB
DATASET, SPLIT = "lvis_layout", "data"
NO_MASKS = "annotation without a mask"  # a reason of the report
_MAY_APPEAR = ("image file missing", "image file unreadable")


class WorkerDied(UserError):
    """A process of the pool was killed from outside; the text says what to do."""


def features() -> tfds.features.FeaturesDict:
    """What a record holds."""
    instance = {
        "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        "label": tfds.features.Scalar(np.int32),
        "mask": tfds.features.Tensor(shape=(MASK_SIZE, MASK_SIZE // 8), dtype=np.uint8, encoding="bytes"),
    }
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "image_id": tfds.features.Scalar(np.int64),
            "orientation": tfds.features.Scalar(np.int32),
            "height": tfds.features.Scalar(np.int32),
            "width": tfds.features.Scalar(np.int32),
            "instances": tfds.features.Sequence(instance),
        }
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """What a process needs to write shard `number` of `total`; arrays as in `Scan`, of the part's own images."""

    number: int
    total: int
    folder: str
    annotations: str
    images: str
    entries: list[ImageEntry]
    start: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray

    @property
    def records(self) -> epath.Path:
        """The shard's file, named as TFDS names it."""
        return (
            epath.Path(as_path(self.folder)) / f"{DATASET}-{SPLIT}.array_record-{self.number:05d}-of-{self.total:05d}"
        )

    @property
    def summary(self) -> epath.Path:
        """There when the shard is finished."""
        return epath.Path(as_path(self.folder)) / "parts" / f"{self.number:05d}.json"


@dataclasses.dataclass
class Summary:
    """What stands in a shard: image ids and sizes, labels of each image, bytes of its records.

    `skipped` was left out; `noted` is there, as the reference has it, but a user should know. `files` are the picture
    files, `boxes` what boxes look like.
    """

    image_id: list[int] = dataclasses.field(default_factory=list)
    image_hw: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    labels: list[list[int]] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    boxes: BoxCounts = dataclasses.field(default_factory=BoxCounts)
    size: int = 0
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    noted: Skipped = dataclasses.field(default_factory=Skipped)

    def write(self, path: epath.Path) -> None:
        """As json, whole or not at all."""
        replace_text(path, json.dumps(vars(self), default=lambda part: part.as_dict()))

    @classmethod
    def read(cls, path: epath.Path) -> "Summary":
        """The summary that `write` left in a file."""
        values = json.loads(path.read_text())
        parts = {"skipped": Skipped, "noted": Skipped, "boxes": BoxCounts}
        return cls(**values | {key: kind(**values[key]) for key, kind in parts.items()})


def parts_of(found: Scan, images: str, folder: epath.Path) -> list[Part]:
    """Equal parts of the images, in file order."""
    total = max(1, -(-len(found.images) // IMAGES_PER_SHARD))
    edges = np.linspace(0, len(found.images), total + 1).astype(int)
    parts = []
    for number in range(total):
        own = slice(edges[number], edges[number + 1])
        start = found.start[edges[number] : edges[number + 1] + 1]
        inside = slice(start[0], start[-1])
        parts.append(
            Part(
                number=number,
                total=total,
                folder=os.fspath(folder),
                annotations=found.path,
                images=images,
                entries=found.images[own],
                start=start - start[0],
                offset=found.offset[inside],
                length=found.length[inside],
                label=found.label[inside],
            )
        )
    return parts


def finished(part: Part) -> bool:
    """Whether the shard is there and need not be made again: image files that were missing may be there by now."""
    if not part.summary.is_file() or not part.records.is_file():
        return False
    return not any(reason in _MAY_APPEAR for reason in Summary.read(part.summary).skipped.counts)


def write_shard(part: Part, advance: Callable[[], Any]) -> None:
    """Write a shard and then its summary, each whole or not at all; `advance` is called for every image.

    Raises:
      AnnotationError: the json is not any more what was scanned.
    """
    summary = Summary()
    serialiser = tfds.core.example_serializer.ExampleSerializer(features().get_serialized_info())
    with _new_records(part) as writer, open_json(part.annotations) as json_file:
        for number, image in enumerate(part.entries):
            advance()
            picture = _picture(image, part.images, summary)
            if picture is None:
                continue
            instances = list(_instances(part, number, json_file, summary))
            record = encoded(image, picture, instances)
            serialised = serialiser.get_tf_example(record).SerializeToString(deterministic=True)
            writer.write(serialised)
            summary.size += len(serialised)
            summary.image_id.append(image.id)
            summary.image_hw.append((image.height, image.width))
            summary.labels.append([int(instance["label"]) for instance in instances])
    summary.write(part.summary)


def encoded(image: ImageEntry, picture: Stored, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `features().encode_example` makes of a record, without its checks of every number."""
    columns: dict[str, Any] = {"box": np.zeros((0, 4), np.float32), "label": np.zeros(0, np.int32)}
    columns["mask"] = np.zeros(0, object)
    if instances:
        columns = {key: [instance[key] for instance in instances] for key in ("box", "label")}
        columns["mask"] = [instance["mask"].tobytes() for instance in instances]
    return {
        "image": picture.content,
        "image_id": np.array(image.id, np.int64),
        "orientation": np.array(picture.orientation, np.int32),
        "height": np.array(image.height, np.int32),
        "width": np.array(image.width, np.int32),
        "instances": columns,
    }


@contextlib.contextmanager
def _new_records(part: Part) -> Iterator[Any]:
    """Writer of the shard's file, which takes its name at the end. Remote ones are written here and copied there."""
    remote = is_remote(part.folder)
    with tempfile.TemporaryDirectory() if remote else contextlib.nullcontext(part.folder) as folder:
        path = epath.Path(folder) / f"{part.records.name}.{os.getpid()}.partial"
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
        try:
            try:
                yield writer
            finally:
                writer.close()
        except RuntimeError as error:  # the writer's only exception
            raise StorageError(f"{part.folder}: {error}") from None
        if remote:
            path.copy(part.records, overwrite=True)
        else:
            path.replace(part.records)


def _picture(image: ImageEntry, folder: str, summary: Summary) -> Stored | None:
    """The picture as training stores it; None, counted, if it can't be used."""
    hw, name, skipped = (image.height, image.width), f"image {image.id}", summary.skipped
    try:
        check_size(hw)
        found = find_image(image._asdict(), folder)
        picture = stored(found.path.read_bytes(), hw)
    except ImageNotFound as error:
        skipped.add(error.reason, str(error))
    except ImageFault as error:
        skipped.add(error.reason, f"{name}: {error}")
    except OSError as error:
        skipped.add("image file unreadable", f"{name}: {error}")
    else:
        for note in picture.notes:
            summary.noted.add(note, f"{name}: {found.path}")
        if found.elsewhere:
            summary.noted.add("picture found in another folder than named", f"{name}: {image.file_name}: {found.path}")
        summary.files.append(os.fspath(found.path.relative_to(epath.Path(folder))))
        return picture
    return None


def _instances(part: Part, number: int, json_file: BinaryIO, summary: Summary) -> Iterator[dict[str, Any]]:
    """What can train of the image's annotations."""
    image = part.entries[number]
    hw = image.height, image.width
    for i in range(part.start[number], part.start[number + 1]):
        json_file.seek(part.offset[i])
        try:
            annotation = json.loads(json_file.read(part.length[i]))
        except ValueError:
            raise AnnotationError(f"{part.annotations}: the file was changed while it was read") from None
        name = f"annotation {annotation['id']} of image {image.id}"
        runs = mask_box = None
        fault = ""
        try:
            runs, mask_box = runs_and_box(annotation.get("segmentation"), hw)
        except BadMask as error:
            fault = str(error)
        summary.boxes.add(suspicion(annotation, mask_box, hw))
        try:
            box = trainable_box(annotation["bbox"], hw)
        except BadMask as error:
            summary.skipped.add("degenerate box", f"{name}: {error}")
            continue
        if runs is None or mask_box is None:
            summary.skipped.add("mask unusable" if has_mask(annotation) else NO_MASKS, f"{name}: {fault}")
            continue
        mask = mask_of_runs(runs, box, hw)
        if not mask.any():
            summary.noted.add("mask beside its box", name)
        elif iou(box.tolist(), mask_box) < FITS:
            summary.noted.add("box that does not fit its mask", name)
        yield {"box": box, "label": np.int32(part.label[i]), "mask": pack(mask)}


class _Shared:
    """Between the processes of a pool: the number of images done, and whether to stop."""

    def __init__(self, context: Any):
        self.done, self.stop = context.Value("q", 0), context.Value("b", 0)

    def advance(self) -> None:
        with self.done.get_lock():
            self.done.value += 1
        if self.stop.value:
            raise KeyboardInterrupt


_shared: _Shared | None = None  # of a process of the pool; workers of a cluster are watched by nobody


def _start_worker(shared: _Shared) -> None:
    global _shared
    _shared = shared


def _write_in_worker(part: Part) -> None:
    with storage_errors(part.folder):  # the storage's own do not survive the way to the parent
        write_shard(part, _shared.advance if _shared else lambda: None)


def write_shards(parts: list[Part], *, workers: int, name: str, beam: Sequence[str] | None = None) -> list[Summary]:
    """Write the shards that are not finished, `workers` at a time (1: in this process); summaries of all, in order.

    `beam`: options of an Apache Beam pipeline whose workers write them instead.

    Raises:
      WorkerDied: a process was killed, perhaps for lack of memory; finished shards stay.
      AnnotationError: as `write_shard`.
    """
    for part in parts:
        part.summary.parent.mkdir(parents=True, exist_ok=True)
    todo = [part for part in parts if not finished(part)]
    total = sum(len(part.entries) for part in parts)
    done = total - sum(len(part.entries) for part in todo)
    if beam is not None:
        run_on_cluster(_write_in_worker, todo, beam)
        return [Summary.read(part.summary) for part in parts]
    with Counter(total, f"prepare {name}", "image", initial=done) as bar:
        if min(workers, len(todo)) > 1:
            _write_in_pool(todo, min(workers, len(todo)), bar)
        else:
            for part in todo:
                write_shard(part, bar.update)
    return [Summary.read(part.summary) for part in parts]


def _write_in_pool(todo: list[Part], workers: int, bar: Counter) -> None:
    shared = _Shared(CONTEXT)
    with WorkerPool(workers, _start_worker, (shared,)) as pool:
        waiting = {pool.submit(_write_in_worker, part) for part in todo}
        counted = 0
        try:
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_EXCEPTION)
                before, counted = counted, shared.done.value
                bar.update(counted - before)
                for future in done:
                    future.result()
        except BrokenProcessPool:
            text = "a worker process was killed, perhaps out of memory: start again (finished shards are kept)"
            raise WorkerDied(f"{todo[0].folder}: {text}, with fewer --workers") from None
        finally:
            shared.stop.value = 1
            pool.shutdown(wait=True, cancel_futures=True)
