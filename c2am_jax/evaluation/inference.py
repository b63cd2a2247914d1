"""Run a detector over a data set and write LVIS results files."""

import collections
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from c2am_jax.data.class_names import Match
from c2am_jax.data.pipeline import NO_IMAGE, eval_batches
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.settings import DataSettings
from c2am_jax.evaluation.encoding import encode_image
from c2am_jax.experiment import Experiment
from c2am_jax.mesh import ImageProgram, LocalImages, on_devices, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.processes import WorkerPool
from c2am_jax.progress import Counter
from c2am_jax.storage import fetch, send
from c2am_jax.structures import Batch, Detections

KINDS = ("bbox", "segm")
SMALL = 500  # images, up to which starting workers takes longer than their work


def make_predict(mesh: Mesh, experiment: Experiment) -> ImageProgram:
    """``(detector, batch, bucket) -> Detections`` in input pixels, images spread over the mesh."""

    def predict(detector: Detector, images: LocalImages) -> Detections:
        inputs = images.inputs
        return detector.module().predict(inputs.image, inputs.image_hw)

    dtype = experiment.prediction_dtype
    return ImageProgram(predict, mesh, **experiment.data.pixels, compute_dtype=dtype, per_image=True)


def write_predictions(
    predict: Callable[..., Detections],
    detector: Detector,
    dataset: PreparedDataset,
    settings: DataSettings,
    mesh: Mesh,
    folder: Path,
    *,
    shared: Path,
    classes: Match,
    batch_size: int,
) -> int:
    """Predict every image; write ``detections_bbox.json`` and ``detections_segm.json``.

    Detections of classes that the data set does not have are left out; returns how many these are, of all processes.

    Every process of a run predicts its share on its own devices and streams it to files of its own, which the first
    process joins at the end. Masks are pasted and encoded by worker processes while the device predicts on: one per
    core, none for 500 images or fewer.

    Args:
      predict: from `make_predict`, over `mesh`.
      detector: with arrays of this process.
      dataset, settings: the images and their pipeline.
      mesh: devices of this process.
      folder: to write into.
      shared: that all processes see: `folder`, or a remote one.
      classes: the detector's beside those of the data set.
      batch_size: of this process; a multiple of its devices.

    """
    processes, process = jax.process_count(), jax.process_index()
    detector = jax.device_put(detector, replicated(mesh))
    workers = os.cpu_count() or 1 if len(dataset) > SMALL else 0
    sizes = dict(zip(dataset.image_id.tolist(), dataset.image_hw, strict=True))
    batches = eval_batches(
        dataset, settings, batch_size=batch_size * processes, process_index=process, process_count=processes
    )
    with contextlib.ExitStack() as stack:
        files = {kind: stack.enter_context(_part(folder, kind, process).open("w")) for kind in KINDS}
        pool = stack.enter_context(WorkerPool(workers)) if workers else None
        bar = stack.enter_context(Counter(len(dataset), "evaluate", "image", shown=process == 0))
        waiting: collections.deque[Any] = collections.deque()
        left_out, known, category_ids = 0, classes.row >= 0, classes.ids

        def write(encoded: tuple[list[str], list[str]]) -> None:
            for kind, lines in zip(KINDS, encoded, strict=True):
                files[kind].writelines(f"{line}\n" for line in lines)
            bar.update(processes)

        def take(batch: Batch, found: Detections) -> None:
            nonlocal left_out
            found = jax.tree.map(np.asarray, found)
            for row, image_id in enumerate(batch.image_id.tolist()):
                if image_id == NO_IMAGE:
                    continue
                keep = found.valid[row].copy()
                keep[keep] = known[found.labels[row][keep]]
                left_out += int(found.valid[row].sum() - keep.sum())
                kept = (array[row][keep] for array in (found.boxes, found.scores, found.labels, found.masks))
                boxes, scores, labels, masks = kept
                target_hw = np.asarray(batch.target_hw[row])
                arguments = (image_id, boxes, scores, category_ids[labels], masks, target_hw, sizes[image_id])
                waiting.append(pool.submit(encode_image, *arguments) if pool else encode_image(*arguments))
            while len(waiting) > (4 * workers if pool else 0):
                first = waiting.popleft()
                write(first.result() if pool else first)

        before = None
        for bucket, batch in batches:
            found = predict(detector, on_devices(batch, mesh), bucket)  # computes while the last one is taken
            if before is not None:
                take(*before)
            before = batch, found
        if before is not None:
            take(*before)
        while waiting:
            first = waiting.popleft()
            write(first.result() if pool else first)
    if processes > 1:
        parts = [(_part(folder, kind, p), _part(shared, kind, p)) for p in range(1, processes) for kind in KINDS]
        for own, there in parts:
            if shared != folder and own.is_file():
                send(own, there)
                own.unlink()
        multihost_utils.sync_global_devices(f"predictions in {shared}")
        for own, there in parts:
            if shared != folder and process == 0:
                fetch(there, own)
                there.unlink()
        left_out = int(np.sum(multihost_utils.process_allgather(np.int32(left_out))))
    if process == 0:
        for kind in KINDS:
            _join([_part(folder, kind, p) for p in range(processes)], folder / f"detections_{kind}.json")
    return left_out


def _part(folder: Path, kind: str, process: int) -> Path:
    return folder / f"detections_{kind}.{process}.partial"


def _join(parts: list[Path], target: Path) -> None:
    """One json list of the lines of all parts, which are deleted."""
    joined = target.with_suffix(".joined")
    with joined.open("w") as file:
        start = "[\n"
        for part in parts:
            with part.open() as lines:
                for line in lines:
                    file.write(start + line.rstrip("\n"))
                    start = ",\n"
        file.write("[]" if start == "[\n" else "\n]\n")
    joined.replace(target)
    for part in parts:
        part.unlink()
