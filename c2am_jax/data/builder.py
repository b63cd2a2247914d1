"""Annotation json + JPEGs -> TFDS records (ArrayRecord, random access), with an index beside them.

A prepared folder holds the records, `index.npz` (what samplers need of every image), `categories.json`,
`annotations.json` (for the evaluator) and `report.json` (what was kept and skipped, and why), written last: without
it the folder is unfinished, and the next preparation from the same files resumes where that one stopped.
"""

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from c2am_jax.data import published, shards
from c2am_jax.data.boxes import BoxCounts
from c2am_jax.data.evaluation_json import write_evaluation_json
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.prepared import VERSION, PreparationError, digest, folder_of, is_prepared, nothing_trains
from c2am_jax.data.sampler import trainable
from c2am_jax.data.scanned import Scan
from c2am_jax.data.skipped import Skipped
from c2am_jax.files import as_path, is_remote, locked, replace_text
from c2am_jax.frequency import GROUPS
from c2am_jax.storage import check_reachable, local_file, storage_errors


@contextlib.contextmanager
def turns(name: str, data_dir: str | os.PathLike) -> Iterator[None]:
    """Processes of one machine that write the same data set take turns; in a remote folder nobody waits."""
    as_path(data_dir).mkdir(parents=True, exist_ok=True)
    if is_remote(data_dir):
        yield
        return
    with locked(Path(data_dir, f".{name}.lock")):
        yield


def prepare(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    name: str,
    data_dir: str | os.PathLike,
    *,
    replace: bool = True,
    replace_other: bool = False,
    trains: bool = False,
    workers: int | None = None,
    training: str | os.PathLike = "",
    beam: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write records, index and report of one json of the LVIS or COCO layout; returns the report.

    Images and annotations that can't be used are skipped, counted and listed in `report.json` (docs/data.md says which
    condition has which consequence). An interrupted preparation resumes with the shards that are missing and gives the
    same bytes. Unless `replace`, a finished one is left as it is, also one that another process finished while this one
    waited for its turn. One of another json is never replaced unless `replace_other`.

    Args:
      annotations: the json, local or remote (gs://).
      images: folder of the image files, local or remote.
      name: of the data set, a folder name; checked against the published counts if it is e.g. "lvis_v1_train".
      data_dir: folder of prepared data sets, local or remote.
      replace: prepare again what is finished.
      replace_other: also if it is of another json, one with another path and other bytes.
      trains: it is for training, and a json that nothing can train on is an error; without masks one still evaluates.
      workers: processes; None for one per core.
      training: local json of the training split, whose groups and counts stand in for those that a validation json
        does not tell.
      beam: options of an Apache Beam pipeline whose workers write the records instead of processes here; they must see
        `annotations`, `images` and `data_dir`.

    Raises:
      AnnotationError: the json is not usable; with `trains`, nothing in it can train.
      PreparationError: no folder `images`, or not one of the images is usable, or a name that is no folder name, or a
        finished set of another json.
      WorkerDied: a process was killed.
      StorageError: a disk is full, or a storage refuses or does not answer.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise PreparationError(f"{name!r} is no name of a data set: letters, digits, '_', '-' and '.' only")
    if beam is not None and is_remote(annotations):
        raise PreparationError(
            f"{annotations}: with Beam the json must be a file that all workers see, not a remote one"
        )
    for place in (annotations, images, data_dir):
        check_reachable(place)
    with storage_errors(data_dir):
        if not as_path(images).is_dir():
            raise PreparationError(f"{images}: no such folder of images")
        with turns(name, data_dir):
            if is_prepared(name, data_dir) and not replace:
                return json.loads((folder_of(name, data_dir) / "report.json").read_text())
            with local_file(annotations) as local:
                if not replace_other:
                    _refuse_other(folder_of(name, data_dir), annotations, local)
                found = scan(local, annotations, training)
                found.require_images()
                if trains:
                    found.require_objects()
                return _prepare(found, os.fspath(images), name, folder_of(name, data_dir), workers, beam, trains)


def _prepare(
    found: Scan,
    images: str,
    name: str,
    folder: epath.Path,
    workers: int | None,
    beam: Sequence[str] | None,
    trains: bool,
) -> dict[str, Any]:
    _make_folder(folder, found, images)
    parts = shards.parts_of(found, images, folder)
    summaries = shards.write_shards(parts, workers=workers or os.cpu_count() or 1, name=name, beam=beam)
    return _finish(name, folder, found, parts, summaries, trains)


def _refuse_other(folder: epath.Path, annotations: str | os.PathLike, local: str | os.PathLike) -> None:
    """Raises PreparationError if a finished set is of another json; one that was edited in its place is the same."""
    if not (folder / "report.json").is_file():
        return
    report = json.loads((folder / "report.json").read_text())
    source = _source(os.fspath(annotations))
    if _source(report["annotations"]) != source and digest(local) != report["annotations_sha256"]:
        raise PreparationError(
            f"{folder} was prepared from {report['annotations']}, not from {source}: take another --name, or give "
            "--replace to lose that set"
        )


def _source(annotations: str) -> str:
    """Where a json lies, the same from every folder that a command is run in."""
    return annotations if is_remote(annotations) else os.path.abspath(annotations)


def _make_folder(folder: epath.Path, found: Scan, images: str) -> None:
    """An empty folder, or the one of an interrupted preparation of the same."""
    plan = {"annotations_sha256": found.sha256, "images": images, "images_per_shard": shards.IMAGES_PER_SHARD}
    record = folder / "parts" / "plan.json"
    same = record.is_file() and json.loads(record.read_text()) == plan
    if same and not (folder / "report.json").is_file():
        for partial in (*folder.glob("*.partial*"), *folder.glob("parts/*.partial*")):
            partial.unlink()
        return
    if folder.exists():
        folder.rmtree()
    record.parent.mkdir(parents=True)
    replace_text(record, json.dumps(plan))


def _finish(
    name: str, folder: epath.Path, found: Scan, parts: list[shards.Part], summaries: list[shards.Summary], trains: bool
) -> dict[str, Any]:
    """What stands beside the records; the report last and at once, because it says that all is there."""
    skipped, noted = Skipped(), Skipped()
    skipped.merge([found.skipped, *(summary.skipped for summary in summaries)])
    noted.merge(summary.noted for summary in summaries)
    _note_shared_files(summaries, noted)
    boxes = BoxCounts()
    boxes.merge([summary.boxes for summary in summaries])
    if not any(summary.image_id for summary in summaries):
        folder.rmtree()
        first = next(names[0] for reason, names in skipped.entries.items() if reason.startswith("image"))
        raise PreparationError(f"{found.name}: not one of its images is usable in {parts[0].images}: {first}")
    index = _index(summaries)
    if trains and not len(trainable(index["image_hw"], index["label_offset"])):
        folder.rmtree()
        raise AnnotationError(nothing_trains(found.name, skipped))
    _write_metadata(folder, summaries)
    stream = io.BytesIO()
    np.savez(stream, **index)  # pyright: ignore[reportArgumentType]
    (folder / "index.npz").write_bytes(stream.getvalue())
    write_evaluation_json(found, folder / "annotations.json")
    (folder / "categories.json").write_text(json.dumps(found.categories.as_dicts()))
    report = _report(name, found, parts[0].images, index, skipped, noted) | {"suspicious": boxes.suspicions()}
    replace_text(folder / "report.json", json.dumps(report, indent=1))
    (folder / "parts").rmtree()
    return report


def faults(report: Mapping[str, Any]) -> list[str]:
    """What a report says of faulty entries, in lines: left out, kept, suspicious, names; with examples."""
    skipped, noted = (
        Skipped(report["skipped"], report["skipped_entries"]),
        Skipped(report["noted"], report["noted_entries"]),
    )
    lines = [f"skipped, {line}" for line in skipped.lines()] + [f"kept, {line}" for line in noted.lines()]
    return lines + [f"suspicious: {what}" for what in report["suspicious"]] + list(report.get("names", ()))


def _note_shared_files(summaries: list[shards.Summary], noted: Skipped) -> None:
    """Tell of image ids that have one and the same file."""
    first: dict[str, int] = {}
    for summary in summaries:
        for image_id, file in zip(summary.image_id, summary.files, strict=True):
            other = first.setdefault(file, image_id)
            if other != image_id:
                noted.add("two image ids with one file", f"images {other} and {image_id}: {file}")


def _write_metadata(folder: epath.Path, summaries: list[shards.Summary]) -> None:
    """By which TFDS reads the records."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=shards.DATASET, split=shards.SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=shards.SPLIT,
        shard_lengths=[len(summary.image_id) for summary in summaries],
        num_bytes=sum(summary.size for summary in summaries),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=shards.features(), split_infos=[split], version=VERSION, check_data=False
    )


def _index(summaries: list[shards.Summary]) -> dict[str, np.ndarray]:
    """The arrays of `prepared.PreparedDataset`."""
    labels = [labels for summary in summaries for labels in summary.labels]
    lengths = [len(of_image) for of_image in labels]
    return {
        "image_id": np.array([i for summary in summaries for i in summary.image_id], np.int64),
        "image_hw": np.array([hw for summary in summaries for hw in summary.image_hw], np.int32),
        "label": np.array([label for of_image in labels for label in of_image], np.int32),
        "label_offset": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }


def _report(
    name: str, found: Scan, images: str, index: Mapping[str, np.ndarray], skipped: Skipped, noted: Skipped
) -> dict[str, Any]:
    categories = {group: len(found.categories.group(group)) for group in GROUPS}
    instances = {group: int(np.isin(index["label"], found.categories.group(group)).sum()) for group in GROUPS}
    counts = {
        **found.listed,
        "images_with_annotations": int((np.diff(found.start) > 0).sum()),
        **{name: categories[letter] for letter, name in GROUPS.items()},
    }
    return {
        "annotations": _source(found.name),
        "annotations_sha256": found.sha256,
        "layout": found.layout,
        "image_folder": images,
        "images": len(index["image_id"]),
        "images_without_annotations": int((np.diff(index["label_offset"]) == 0).sum()),
        "instances": len(index["label"]),
        "categories": categories,
        "instances_of_group": instances,
        "in_the_file": counts,
        "published": name in published.PUBLISHED,
        "unlike_published": published.differences(name, counts),
        "added_for_evaluation": found.completed,
        "names": found.name_faults,
        "nothing_to_score": found.nothing_to_score,
        "noted": noted.counts,
        "noted_entries": noted.entries,
        "skipped": skipped.counts,
        "skipped_entries": skipped.entries,
    }
