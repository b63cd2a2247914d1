"""A few validation images, what is annotated beside what was detected: the same images at every evaluation."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.records import parse_record
from c2am_jax.evaluation.encoding import paste
from c2am_jax.files import as_path, replacing
from c2am_jax.visualization.draw import draw
from c2am_jax.visualization.grid import Captioned, grid

NAME = "pictures.jpg"
IMAGES = 8
PAIRS = 2  # beside each other
SIDE = 480  # longest side of a picture; smaller ones are enlarged by a whole factor
MOST = 10  # detections drawn on an image, the best
NOTHING_RIGHT = 0.5  # the lowest score drawn while no threshold finds anything
QUALITY = 88


class _Drawn(NamedTuple):
    boxes: np.ndarray  # [D, 4], xyxy in pixels of the picture
    labels: np.ndarray  # [D]
    scores: np.ndarray | None
    masks: list[np.ndarray]  # D times bool [h, w]


def pictures_of(workdir: str | Path, step: int) -> Path:
    """Where `write_pictures` puts those of the evaluation after `step`."""
    return as_path(workdir) / "eval" / str(step) / NAME


def shown_images(dataset: PreparedDataset, most: int = IMAGES) -> list[int]:
    """Indices of the images to show: evenly spread over those with annotations, the same for equal data."""
    annotated = np.flatnonzero(np.diff(dataset.label_offset))
    chosen = np.linspace(0, len(annotated) - 1, min(most, len(annotated))).round().astype(int)
    return annotated[chosen].tolist()


def write_pictures(dataset: PreparedDataset, folder: Path, thresholds: Iterable[Mapping[str, float]]) -> Path | None:
    """Write ``pictures.jpg`` into the folder of an evaluation; None without annotated images.

    Args:
      dataset: that was predicted.
      folder: with detections_bbox.json and detections_segm.json.
      thresholds: rows of `LVISAP.thresholds`; detections from the score with the best F1 on are drawn, at most `MOST`
        of an image.
    """
    indices = shown_images(dataset)
    if not indices:
        return None
    best = max(thresholds, key=lambda row: row["f1"])
    threshold = best["threshold"] if best["f1"] > 0 else NOTHING_RIGHT
    found = _detections(folder, {int(dataset.image_id[index]) for index in indices}, threshold)
    cells = []
    for index in indices:
        image_id = int(dataset.image_id[index])
        picture, enlarge, truth = _record(dataset, index)
        detected = _detected(found[image_id], dataset, picture.shape[:2])
        sides = ((truth, "annotated"), (detected, f"detected, scores from {threshold:.2f} on"))
        for things, what in sides:
            drawn = draw(picture, *things, names=dataset.categories.names, enlarge=enlarge)
            cells.append(Captioned(drawn, f"image {image_id}: {what}"))
    rows = [cells[start : start + 2 * PAIRS] for start in range(0, len(cells), 2 * PAIRS)]
    target = folder / NAME
    with replacing(target) as partial:
        Image.fromarray(grid(rows)).save(partial, quality=QUALITY)
    return target


def _record(dataset: PreparedDataset, index: int) -> tuple[np.ndarray, int, _Drawn]:
    """Pixels, at most `SIDE` long; the whole factor by which they may be enlarged; the annotations on them."""
    decoded, _, (boxes, labels, masks) = parse_record(dataset.read(index))
    pixels = decoded.numpy()
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    hw = pixels.shape[0], pixels.shape[1]
    ratio = np.array([hw[1] / width, hw[0] / height] * 2, np.float32)
    scaled = boxes.numpy() * ratio
    frames = np.unpackbits(masks.numpy(), axis=-1).reshape(-1, MASK_SIZE, MASK_SIZE)
    whole = [_placed(*paste(frame.astype(np.float32), box, hw), hw) for frame, box in zip(frames, scaled, strict=True)]
    return pixels, max(1, SIDE // max(hw)), _Drawn(scaled, labels.numpy(), None, whole)


def _placed(region: np.ndarray, corner: tuple[int, int], hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(hw, bool)
    mask[corner[0] : corner[0] + region.shape[0], corner[1] : corner[1] + region.shape[1]] = region
    return mask


def _detections(folder: Path, images: set[int], threshold: float) -> dict[int, list[dict[str, Any]]]:
    """Entries of some images with their boxes and masks, the best `MOST` of each with at least that score."""
    found: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
    kinds = (_lines(folder / f"detections_{kind}.json") for kind in ("bbox", "segm"))
    for box_line, mask_line in zip(*kinds, strict=True):
        if _image_of(box_line) in images:
            entry = json.loads(mask_line) | json.loads(box_line)
            if entry["score"] >= threshold:
                found[entry["image_id"]].append(entry)
    return {image: sorted(entries, key=lambda e: -e["score"])[:MOST] for image, entries in found.items()}


def _lines(path: Path) -> Iterator[str]:
    """The entries of a file that `write_predictions` wrote: one a line, those of both files in the same order."""
    with path.open() as file:
        for line in file:
            entry = line.strip().rstrip(",")
            if entry.startswith("{"):
                yield entry


def _image_of(line: str) -> int:
    """The image id of an entry, its first key, without reading the rest: of millions a few are wanted."""
    return int(line[line.index(":") + 1 : line.index(",")])


def _detected(entries: list[dict[str, Any]], dataset: PreparedDataset, hw: tuple[int, ...]) -> _Drawn:
    """The entries of one image on its picture."""
    classes = dataset.categories.class_of
    known = [entry for entry in entries if entry["category_id"] in classes]
    masks, boxes = [], []
    for entry in known:
        raster = coco_mask.decode(entry["segmentation"])
        ratio = np.array([hw[1] / raster.shape[1], hw[0] / raster.shape[0]])
        resized = Image.fromarray(raster).resize((hw[1], hw[0]), Image.Resampling.NEAREST)
        masks.append(np.asarray(resized, bool))
        x, y, w, h = entry["bbox"]
        boxes.append(np.array([x, y, x + w, y + h]) * np.tile(ratio, 2))
    labels = np.array([classes[entry["category_id"]] for entry in known], int)
    return _Drawn(np.array(boxes).reshape(-1, 4), labels, np.array([entry["score"] for entry in known]), masks)
