"""LVIS AP, box, mask or boundary, at any size: both files are streamed, categories are scored in parallel processes.

The protocol is that of the `lvis` package (0.5.3), number for number; `ap_matching` has its rules. Memory holds some 60
bytes per detection; masks are read from the results file when their category is scored.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.class_names import match
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import UserError
from c2am_jax.evaluation.ap_matching import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    CategoryResult,
    ObjectTable,
    Problem,
    evaluate_categories,
    pooled_ap,
)
from c2am_jax.evaluation.detection_rows import MAX_DETECTIONS, DetectionRows
from c2am_jax.evaluation.result_classes import ResultClasses, left_out_line
from c2am_jax.evaluation.truths import Truths, read_truths
from c2am_jax.frequency import GROUPS
from c2am_jax.processes import WorkerPool

IOU_TYPES = ("bbox", "segm")
ALL_IOU_TYPES = (*IOU_TYPES, "boundary")
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

        def at(t):
            return precision[np.flatnonzero(IOU_THRESHOLDS == t)][..., 0]

        found = {"AP": precision[..., 0], "AP50": at(0.5), "AP75": at(0.75)}
        found |= {f"AP{name[0]}": precision[..., i] for i, name in enumerate(AREA_NAMES) if i}
        found |= {f"AP{group}": precision[:, :, self.categories.group(group), 0] for group in GROUPS}
        found[f"AR{suffix}"] = recall[..., 0]
        found |= {f"AR{name[0]}{suffix}": recall[..., i] for i, name in enumerate(AREA_NAMES) if i}
        counted = {name: values[values > -1] for name, values in found.items()}
        return {name: float(values.mean()) if values.size else -1.0 for name, values in counted.items()}

    def pooled(self) -> dict[str, float]:
        """AP-pool of all categories, APpool, and of rare, common and frequent ones, APpoolr/c/f; see `pooled_ap`."""
        groups = {"": range(len(self.results)), **{letter: self.categories.group(letter) for letter in GROUPS}}
        return {f"APpool{name}": pooled_ap([self.results[k] for k in group]) for name, group in groups.items()}

    def category_ap(self) -> np.ndarray:
        """AP of each category in id order; -1 for those without ground truth."""
        values = np.stack([r.precision[..., 0] for r in self.results], -1)
        return np.where((values > -1).any((0, 1)), values.mean((0, 1)), -1.0)

    def category_table(self) -> list[dict[str, Any]]:
        """A row per category: id, name, frequency, training counts, ground truths, AP, AP50, AP75, AR (-1: absent)."""
        rows = self.categories.as_dicts()
        at = [int(np.flatnonzero(t == IOU_THRESHOLDS)[0]) for t in (0.5, 0.75)]
        for row, ap, found in zip(rows, self.category_ap().tolist(), self.results, strict=True):
            at50, at75 = (float(found.precision[t, :, 0].mean()) for t in at)
            row |= {"ground_truths": found.ground_truths, "AP": ap, "AP50": at50, "AP75": at75}
            row["AR"] = float(found.recall[:, 0].mean())
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
    classes: ResultClasses | None = None,
    groups: CategoryTable | None = None,
    images: Collection[int] | None = None,
    show: Callable[[str], None] | None = None,
) -> LVISAP:
    """Score a results file against a LVIS json.

    Args:
      annotations: json in the LVIS or COCO layout.
      predictions: LVIS results json: a list of {image_id, category_id, score, bbox or segmentation}. Where the first
        entry has a box, boxes decide what is small (the package's rule).
      iou_type: "bbox", "segm" or "boundary" (the smaller of mask and boundary IoU, Cheng et al., CVPR 2021).
      fixed: AP-fixed (Dave et al., 2021): instead of the 300 best detections of each image, the 10,000 best of each
        category over all images count.
      workers: processes; default one per core for large files, none for small ones.
      evidence: keep the objects too, some 75 bytes for each.
      classes: what the category ids of `predictions` mean, which then go by name; without it they are the annotations'.
      groups: categories of the training set, whose rare, common and frequent ones are meant; `classes` if not given,
        else the annotations' own.
      images: ids of those that count, such as `minival.chosen_images`; None: all.
      show: gets what a user should know about both files, line by line.

    Raises:
      UserError: either file is missing or not what it should be; the text names file and entry.
    """
    if iou_type not in ALL_IOU_TYPES:
        raise UserError(f"iou_type must be {', '.join(ALL_IOU_TYPES)}, not {iou_type!r}")
    truths = read_truths(annotations, groups or (classes.table if classes else None), images)
    matched = classes and match(classes.table, truths.table, classes.name, str(annotations))
    found = DetectionRows(str(predictions), iou_type, truths, matched)
    found.read()
    notes = (*found.warnings, *truths.notes, *(matched.lines() if matched else ()), *left_out_line(found.left_out))
    for line in notes if show else ():
        show(line)
    best = found.best(fixed=fixed)
    keep = best & found.verified(truths)
    detections, files = found.objects(keep, len(truths.table)), (str(annotations), str(predictions))
    problem = Problem(iou_type, truths.objects, detections, truths.image_hw, truths.not_exhaustive, *files)
    results = _run(problem, int(keep.sum()), workers)
    looked = _evidence(problem, truths, found.objects(best, len(truths.table))) if evidence else None
    return LVISAP(truths.table, results, 0 if fixed else MAX_DETECTIONS, looked)


def _evidence(problem: Problem, truths: Truths, detections: ObjectTable) -> Evidence:
    codes = detections.image * problem.categories + detections.labels()
    everything = dataclasses.replace(problem, detections=detections)
    return Evidence(everything, truths.verified(codes), truths.image_ids)


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
        with WorkerPool(workers) as pool:
            done = list(pool.map(_work, [folder] * len(packs), [small] * len(packs), packs))
    results = {k: r for pack, found in zip(packs, done, strict=True) for k, r in zip(pack, found, strict=True)}
    return [results[k] for k in range(count)]


def _work(folder: str, problem: Problem, categories: list[int]) -> list[CategoryResult]:
    parts = {name: ObjectTable.load(Path(folder) / name) for name in ("truths", "detections")}
    return list(evaluate_categories(dataclasses.replace(problem, **parts), categories))
