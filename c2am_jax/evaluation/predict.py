"""Run a detector over a data set and write LVIS results files."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pycocotools import mask as coco_mask
from tqdm import tqdm

from c2am_jax.data.builder import PreparedDataset
from c2am_jax.data.pipeline import NO_IMAGE, PipelineSettings, eval_batches
from c2am_jax.models.functional import Arrays, Functional
from c2am_jax.ops.masks import paste
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.structures import Batch, Detections


def make_predict(
    functional: Functional, mesh: Mesh, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Arrays, Arrays, Batch, tuple[int, int]], Detections]:
    """``(params, rest, batch, bucket) -> Detections`` in input pixels, images spread over the mesh."""
    axis = mesh.axis_names[0]

    def local(params, rest, batch, bucket):
        inputs = preprocess(batch, bucket, mean=mean, std=std)
        return functional.merge(params, rest).predict(inputs.image, inputs.image_hw)

    @functools.partial(jax.jit, static_argnums=3)
    def predict(params, rest, batch, bucket):
        mapped = jax.shard_map(
            functools.partial(local, bucket=bucket),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(axis)),
            out_specs=PartitionSpec(axis),
        )
        return mapped(params, rest, batch)

    return predict


def to_results(
    detections: Detections, image_id: int, input_hw: np.ndarray, original_hw: np.ndarray, category_ids: np.ndarray
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Box and mask entries of one image's detections (numpy), at the original size.

    Args:
      detections: of one image, [D, ...].
      image_id: of the data set.
      input_hw: size of the image in the network's input.
      original_hw: its size in the annotations.
      category_ids: [K], of each class.
    """
    ratio = (original_hw / input_hw)[::-1].astype(np.float32)
    height, width = (int(v) for v in original_hw)
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(detections.boxes * np.concatenate([ratio, ratio]), 0, limit)
    raster = np.zeros((height, width), np.uint8, order="F")
    for box, score, label, probability, valid in zip(
        boxes, detections.scores, detections.labels, detections.masks, detections.valid, strict=True
    ):
        if not valid:
            continue
        common = {"image_id": image_id, "category_id": int(category_ids[label]), "score": float(score)}
        x1, y1, x2, y2 = (float(v) for v in box)
        region, (top, left) = paste(probability, box, (height, width))
        window = (slice(top, top + region.shape[0]), slice(left, left + region.shape[1]))
        raster[window] = region
        rle = coco_mask.encode(raster)
        raster[window] = 0
        segmentation = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        yield {**common, "bbox": [x1, y1, x2 - x1, y2 - y1]}, {**common, "segmentation": segmentation}


class _JsonList:
    """A json list written entry by entry."""

    def __init__(self, file: TextIO):
        self._file, self._started = file, False
        file.write("[")

    def add(self, entry: dict[str, Any]) -> None:
        self._file.write((",\n" if self._started else "\n") + json.dumps(entry))
        self._started = True

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


def write_predictions(
    predict: Callable[..., Detections],
    params: Arrays,
    rest: Arrays,
    dataset: PreparedDataset,
    settings: PipelineSettings,
    mesh: Mesh,
    folder: Path,
    *,
    batch_size: int,
) -> None:
    """Predict every image; ``detections_bbox.json`` and ``detections_segm.json`` grow while it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = dict(zip(dataset.image_id.tolist(), dataset.image_hw, strict=True))
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    partial = {kind: folder / f"detections_{kind}.json.partial" for kind in ("bbox", "segm")}
    files = {kind: _JsonList(path.open("w")) for kind, path in partial.items()}
    with tqdm(total=len(dataset), desc="evaluate", unit="image", disable=None) as bar:
        for bucket, batch in eval_batches(dataset, settings, batch_size=batch_size):
            found = predict(params, rest, jax.device_put(batch, sharding), bucket)
            found = jax.tree.map(np.asarray, found)
            for row, image_id in enumerate(batch.image_id.tolist()):
                if image_id == NO_IMAGE:
                    continue
                one = jax.tree.map(lambda a, row=row: a[row], found)
                entries = to_results(one, image_id, batch.target_hw[row], sizes[image_id], dataset.categories.ids)
                for box_entry, mask_entry in entries:
                    files["bbox"].add(box_entry)
                    files["segm"].add(mask_entry)
                bar.update()
    for kind, path in partial.items():
        files[kind].close()
        path.replace(folder / f"detections_{kind}.json")
