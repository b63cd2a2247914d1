"""LVIS AP, box, mask or boundary, at any size: both files are streamed, categories are scored in parallel processes.

The protocol is that of the `lvis` package (0.5.3), number for number; `matching` has its rules. Memory holds some 60
bytes per detection; masks are read from the results file when their category is scored.
"""

import concurrent.futures
import dataclasses
import math
import multiprocessing
import os
import tempfile
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.json_stream import BrokenJson, read_list, read_lists
from c2am_jax.data.lvis import FREQUENCIES, AnnotationError, CategoryTable, category_table
from c2am_jax.errors import UserError
from c2am_jax.evaluation.matching import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    CategoryResult,
    Objects,
    Problem,
    evaluate_categories,
)

IOU_TYPES = ("bbox", "segm")
ALL_IOU_TYPES = (*IOU_TYPES, "boundary")
MAX_DETECTIONS = 300  # of an image, the best count
FIXED_PER_CATEGORY = 10_000  # of a category over all images, for AP-fixed
PARALLEL_FROM = 50_000  # detections; fewer are scored before processes would have started


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The single objects behind the scores, for who wants to look at them.

    Attributes:
      problem: all ground truths, and the detections within the limit, those of unverified categories too.
      counts: bool [N], of detections: whether their category is verified in their image.
      image_ids: [images].
    """

    problem: Problem
    counts: np.ndarray
    image_ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class LVISAP:
    """Scores of a results file.

    Attributes:
      categories: row k is class k.
      results: of each category.
      limit: detections of an image that count; 0: no limit (AP-fixed).
      evidence: if it was asked for.
    """

    categories: CategoryTable
    results: list[CategoryResult]
    limit: int = MAX_DETECTIONS
    evidence: Evidence | None = None

    def metrics(self) -> dict[str, float]:
        """AP, AP50, AP75, APs/m/l (area), APr/c/f (frequency), AR@300 and ARs/m/l@300; -1 where nothing counts."""
        precision = np.stack([r.precision for r in self.results], 2)  # [IoU, recall, category, area]
        recall = np.stack([r.recall for r in self.results], 1)
        suffix = f"@{self.limit}" if self.limit else "@all"
        at = lambda t: precision[np.flatnonzero(IOU_THRESHOLDS == t)][..., 0]  # noqa: E731
        found = {"AP": precision[..., 0], "AP50": at(0.5), "AP75": at(0.75)}
        found |= {f"AP{name[0]}": precision[..., i] for i, name in enumerate(AREA_NAMES) if i}
        found |= {f"AP{group}": precision[:, :, self.categories.group(group), 0] for group in FREQUENCIES}
        found[f"AR{suffix}"] = recall[..., 0]
        found |= {f"AR{name[0]}{suffix}": recall[..., i] for i, name in enumerate(AREA_NAMES) if i}
        return {
            name: float(values[values > -1].mean()) if (values > -1).any() else -1.0 for name, values in found.items()
        }

    def category_ap(self) -> np.ndarray:
        """AP of each category in id order; -1 for those without ground truth."""
        values = np.stack([r.precision[..., 0] for r in self.results], -1)
        return np.where((values > -1).any((0, 1)), values.mean((0, 1)), -1.0)

    def category_table(self) -> list[dict[str, Any]]:
        """A row per category: id, name, frequency, training counts, ground truths, AP, AP50, AP75, AR (-1: absent)."""
        table, rows = self.categories, []
        at = [int(np.flatnonzero(t == IOU_THRESHOLDS)[0]) for t in (0.5, 0.75)]
        for k, (ap, found) in enumerate(zip(self.category_ap().tolist(), self.results, strict=True)):
            rows.append(
                {
                    "id": int(table.ids[k]),
                    "name": table.names[k],
                    "frequency": table.frequency[k],
                    "image_count": int(table.image_count[k]),
                    "instance_count": int(table.instance_count[k]),
                    "ground_truths": found.ground_truths,
                    "AP": ap,
                    "AP50": float(found.precision[at[0], :, 0].mean()),
                    "AP75": float(found.precision[at[1], :, 0].mean()),
                    "AR": float(found.recall[:, 0].mean()),
                }
            )
        return rows

    def thresholds(self) -> list[dict[str, float]]:
        """What score thresholds from 0.05 to 0.95 keep, at IoU 0.5 over all categories: precision, recall, F1.

        Detections that do not count (unverified categories, incomplete annotations) are left out.
        """
        scores = np.concatenate([r.scores for r in self.results] or [np.zeros(0)])
        hits = np.concatenate([r.hits for r in self.results] or [np.zeros(0, bool)])
        truths = sum(r.ground_truths for r in self.results)
        rows = []
        for threshold in np.arange(1, 20) / 20:
            kept = scores >= threshold
            true = int((kept & hits).sum())
            precision, recall = true / max(int(kept.sum()), 1), true / max(truths, 1)
            f1 = 2 * precision * recall / max(precision + recall, 1e-12)
            rows.append({"threshold": float(threshold), "precision": precision, "recall": recall, "f1": f1})
        return rows


def evaluate_file(
    annotations: str | Path,
    predictions: str | Path,
    iou_type: str,
    *,
    fixed: bool = False,
    workers: int | None = None,
    evidence: bool = False,
) -> LVISAP:
    """Score a results file against a LVIS json.

    Args:
      annotations: json in the LVIS layout.
      predictions: LVIS results json: a list of {image_id, category_id, score, bbox or segmentation}. Where the first
        entry has a box, boxes decide what is small (the package's rule).
      iou_type: "bbox", "segm" or "boundary" (the smaller of mask and boundary IoU, Cheng et al., CVPR 2021).
      fixed: AP-fixed (Dave et al., 2021): instead of the 300 best detections of each image, the 10,000 best of each
        category over all images count.
      workers: processes; default one per core for large files, none for small ones.
      evidence: keep the objects too, some 75 bytes for each.

    Raises:
      UserError: either file is missing or not what it should be; the text names file and entry.
    """
    if iou_type not in ALL_IOU_TYPES:
        raise UserError(f"iou_type must be {', '.join(ALL_IOU_TYPES)}, not {iou_type!r}")
    truths = _Truths(str(annotations))
    _stream(annotations, lambda file, path: truths.read(file))
    truths.finish()
    found = _Detections(str(predictions), iou_type, truths)
    _stream(predictions, lambda file, path: read_list(file, path, found.add))
    best = found.best(fixed=fixed)
    keep = best & found.verified(truths)
    problem = Problem(
        iou_type,
        truths.objects(),
        found.objects(keep, len(truths.table)),
        truths.image_hw,
        truths.not_exhaustive,
        str(annotations),
        str(predictions),
    )
    results = _run(problem, int(keep.sum()), workers)
    looked = _evidence(problem, truths, found.objects(best, len(truths.table))) if evidence else None
    return LVISAP(truths.table, results, 0 if fixed else MAX_DETECTIONS, looked)


def _evidence(problem: Problem, truths: "_Truths", detections: Objects) -> Evidence:
    codes = detections.image * problem.categories + detections.labels()
    everything = dataclasses.replace(problem, detections=detections)
    return Evidence(everything, np.isin(codes, truths.verified), truths.image_ids)


def _stream(path: str | Path, read: Callable[[Any, str], Any]) -> None:
    try:
        with open(path, "rb") as file:
            read(file, str(path))
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file") from None
    except BrokenJson as error:
        raise AnnotationError(str(error)) from None


def _run(problem: Problem, detections: int, workers: int | None) -> list[CategoryResult]:
    count = problem.categories
    workers = (os.cpu_count() or 1 if detections >= PARALLEL_FROM else 1) if workers is None else workers
    if workers <= 1:
        return list(evaluate_categories(problem, range(count)))
    # Heavy categories first, dealt out in small packs, so that no process is left with a long one at the end.
    weight = np.diff(problem.detections.start) + np.diff(problem.truths.start)
    order = np.argsort(-weight, kind="stable").tolist()
    packs = [order[i::64] for i in range(min(64, count))]
    with tempfile.TemporaryDirectory(prefix="c2am_ap_") as folder:
        problem.truths.save(Path(folder) / "truths")
        problem.detections.save(Path(folder) / "detections")
        small = dataclasses.replace(problem, truths=None, detections=None)  # pyright: ignore[reportArgumentType]
        context = multiprocessing.get_context("spawn")  # threads of JAX do not survive a fork
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            done = list(pool.map(_work, [folder] * len(packs), [small] * len(packs), packs))
    results = {k: r for pack, found in zip(packs, done, strict=True) for k, r in zip(pack, found, strict=True)}
    return [results[k] for k in range(count)]


def _work(folder: str, problem: Problem, categories: list[int]) -> list[CategoryResult]:
    parts = {name: Objects.load(Path(folder) / name) for name in ("truths", "detections")}
    return list(evaluate_categories(dataclasses.replace(problem, **parts), categories))


class _Truths:
    """What the annotation json says, as arrays."""

    def __init__(self, path: str):
        self.path = path
        self._images: list[tuple[int, int, int, Any, Any]] = []
        self._categories: list[dict[str, Any]] = []
        self._columns: list[tuple] = []

    def read(self, file) -> None:
        """All three lists."""
        handlers = {"images": self._image, "categories": self._category, "annotations": self._annotation}
        counts, _ = read_lists(file, self.path, handlers)
        for key in handlers:
            self._require(key in counts, f"no list {key!r}: not the LVIS layout")
        self._require(bool(self._categories), "the list 'categories' is empty")

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise AnnotationError(f"{self.path}: {what}")

    def _image(self, image: Any, *_: int) -> None:
        self._require(isinstance(image, dict) and isinstance(image.get("id"), int), "an entry of 'images' has no id")
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            self._require(isinstance(image.get(key), list), f"image {image['id']}: no {key!r}, which LVIS AP needs")
        size = image.get("height"), image.get("width")
        self._require(all(isinstance(s, int) and s > 0 for s in size), f"image {image['id']}: no height and width")
        negative, incomplete = image["neg_category_ids"], image["not_exhaustive_category_ids"]
        self._images.append((image["id"], *size, negative, incomplete))

    def _category(self, category: Any, *_: int) -> None:
        known = isinstance(category, dict) and isinstance(category.get("id"), int)
        self._require(known, "an entry of 'categories' has no id")
        known = category.get("frequency") in FREQUENCIES
        self._require(known, f"category {category['id']}: no frequency {', '.join(FREQUENCIES)}")
        self._categories.append(category)

    def _annotation(self, entry: Any, offset: int, length: int) -> None:
        self._require(isinstance(entry, dict) and isinstance(entry.get("id"), int), "an annotation has no id")
        for key in ("image_id", "category_id", "bbox", "area"):
            self._require(key in entry, f"annotation {entry['id']}: no {key!r}")
        box = entry["bbox"]
        numbers = isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))
        self._require(numbers, f"annotation {entry['id']}: bbox is not [x, y, width, height]")
        self._require(_is_finite(entry["area"]), f"annotation {entry['id']}: area {entry['area']!r} is not a number")
        for key in ("image_id", "category_id"):
            self._require(
                isinstance(entry[key], int), f"annotation {entry['id']}: {key} {entry[key]!r} is not an integer"
            )
        ignored = bool(entry.get("ignore", 0))
        row = (entry["image_id"], entry["category_id"], *box, entry["area"], ignored, entry["id"], offset, length)
        self._columns.append(row)

    def finish(self) -> None:
        """Indices instead of ids, codes of what is verified."""
        self._images.sort(key=lambda image: image[0])
        self.image_ids = np.array([image[0] for image in self._images], np.int64)
        self.image_hw = np.array([image[1:3] for image in self._images], np.int64).reshape(-1, 2)
        self.table = category_table(self._categories)
        self.index_of_image = {int(i): n for n, i in enumerate(self.image_ids)}
        self.class_of = self.table.class_of
        self._rows = np.array(self._columns, np.float64).reshape(-1, 11)
        self._columns = []
        self._image_column = self._indices(0, self.index_of_image, "images")
        self._class_column = self._indices(1, self.class_of, "categories")
        classes = len(self.table)
        codes = [
            [
                n * classes + self.class_of[c]
                for n, image in enumerate(self._images)
                for c in image[i]
                if c in self.class_of
            ]
            for i in (3, 4)
        ]
        negative, self.not_exhaustive = (np.unique(np.array(found, np.int64)) for found in codes)
        present = self._image_column * classes + self._class_column
        self.verified = np.unique(np.concatenate([negative, present]))
        self._images = []

    def _indices(self, column: int, index: Mapping[int, int], listed: str) -> np.ndarray:
        found = np.array([index.get(int(i), -1) for i in self._rows[:, column]], np.int64)
        for row in np.flatnonzero(found < 0)[:1]:
            name, value = int(self._rows[row, 8]), int(self._rows[row, column])
            self._require(False, f"annotation {name}: id {value} is not in {listed!r}")
        return found

    def objects(self) -> Objects:
        """Sorted by category and image; file order within."""
        rows, classes = self._rows, len(self.table)
        order = np.lexsort((np.arange(len(rows)), self._image_column, self._class_column))
        column = lambda i: rows[order, i]  # noqa: E731
        return Objects(
            start=np.searchsorted(self._class_column[order], np.arange(classes + 1)),
            image=self._image_column[order],
            score=np.zeros(len(order)),
            box=rows[order, 2:6],
            area=column(6),
            ignore=column(7) != 0,
            known=column(8) != 0,
            offset=column(9).astype(np.int64),
            length=column(10).astype(np.int64),
        )


class _Detections:
    """What the results json says, as arrays."""

    def __init__(self, path: str, iou_type: str, truths: _Truths):
        self.path = path
        self._image_of, self._class_of = truths.index_of_image, truths.class_of
        self._sizes = truths.image_hw.tolist()
        self._field = "bbox" if iou_type == "bbox" else "segmentation"
        self._needed = ("image_id", "category_id", "score", self._field)
        self._has_boxes = iou_type == "bbox"
        self._image, self._label, self._length = array("i"), array("i"), array("i")
        self._score, self._box, self._offset = array("d"), array("d"), array("q")

    def add(self, entry: Any, offset: int, length: int) -> None:
        """The next detection. Raises UserError unless it is one for these images and categories."""
        self._require(isinstance(entry, dict), f"not an object with {', '.join(self._needed)}")
        for key in self._needed:
            self._require(key in entry, f"no {key!r}, which scoring by {self._field} needs")
        if not self._score:
            self._has_boxes = "bbox" in entry
        image, label = self._known(entry, "image_id", self._image_of), self._known(entry, "category_id", self._class_of)
        score = entry["score"]
        self._require(_is_finite(score), f"score {score!r} is not a finite number")
        if self._has_boxes:
            box = entry.get("bbox")
            numbers = isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))
            self._require(numbers, f"bbox {box!r} is not [x, y, width, height] of finite numbers")
            self._box.extend(box)  # pyright: ignore[reportArgumentType]
        if self._field == "segmentation":
            rle = entry["segmentation"]
            compressed = isinstance(rle, dict) and isinstance(rle.get("counts"), str)
            self._require(compressed, "segmentation is not a compressed RLE (size and counts)")
            size = self._sizes[image]
            self._require(
                rle.get("size") == size, f"RLE of size {rle.get('size')}, but image {entry['image_id']} is {size}"
            )
        self._image.append(image)
        self._label.append(label)
        self._score.append(score)
        self._offset.append(offset)
        self._length.append(length)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise UserError(f"{self.path}: detection {len(self._score)}: {what}")

    def _known(self, entry: dict[str, Any], key: str, index: Mapping[int, int]) -> int:
        value = entry[key]
        found = index.get(value, -1) if isinstance(value, int) else -1
        self._require(found >= 0, f"{key.replace('_', ' ')} {value} is not in the annotations")
        return found

    def best(self, *, fixed: bool) -> np.ndarray:
        """Which detections are among the best of their image (or category): bool [N]."""
        image, label, score = (np.asarray(a) for a in (self._image, self._label, self._score))
        groups, most = (label, FIXED_PER_CATEGORY) if fixed else (image, MAX_DETECTIONS)
        order = np.lexsort((np.arange(len(score)), -score, groups))
        rank = np.arange(len(score)) - np.searchsorted(groups[order], groups[order])
        keep = np.zeros(len(score), bool)
        keep[order[rank < most]] = True
        return keep

    def verified(self, truths: _Truths) -> np.ndarray:
        """Which detections are of a category that the annotations of their image say something about: bool [N]."""
        image, label = np.asarray(self._image).astype(np.int64), np.asarray(self._label)
        return np.isin(image * len(truths.table) + label, truths.verified)

    def objects(self, keep: np.ndarray, classes: int) -> Objects:
        """Those that count, sorted by category, image and score; file order among equals."""
        image, label, score = (np.asarray(a) for a in (self._image, self._label, self._score))
        rows = np.flatnonzero(keep)
        rows = rows[np.lexsort((rows, -score[rows], image[rows], label[rows]))]
        box = np.asarray(self._box).reshape(-1, 4)[rows] if self._has_boxes else np.full((len(rows), 4), np.nan)
        return Objects(
            start=np.searchsorted(label[rows], np.arange(classes + 1)),
            image=image[rows].astype(np.int64),
            score=score[rows],
            box=box,
            area=box[:, 2] * box[:, 3],
            ignore=np.zeros(len(rows), bool),
            known=np.ones(len(rows), bool),
            offset=np.asarray(self._offset)[rows],
            length=np.asarray(self._length)[rows].astype(np.int64),
        )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
