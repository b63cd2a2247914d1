"""LVIS AP by the `lvis` package's protocol, on any numpy.

lvis 0.5.3 accumulates with `numpy.float`, which numpy removed in 1.24; `LVISAP` replaces that one method. Its drawing
code imports cv2, which needs system libraries that servers lack and evaluation does not.
"""

import logging
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

try:
    import cv2  # noqa: F401
except ImportError:
    sys.modules["cv2"] = types.ModuleType("cv2")

from lvis.eval import LVISEval
from lvis.lvis import LVIS
from lvis.results import LVISResults

from c2am_jax.data.lvis import AnnotationError, read_annotations, read_json
from c2am_jax.errors import UserError

logging.getLogger("lvis").setLevel(logging.ERROR)
IOU_TYPES = ("bbox", "segm")
MAX_DETECTIONS = 300


class LVISAP(LVISEval):
    """`lvis.LVISEval` whose accumulation runs on today's numpy, vectorised over IoU thresholds."""

    def accumulate(self) -> None:
        """Precision [IoU, recall, class, area] and recall [IoU, class, area] from the per-image matches; -1: absent."""
        params = self.params
        shape = len(params.iou_thrs), len(params.rec_thrs), len(params.cat_ids), len(params.area_rng)
        precision = -np.ones(shape)
        recall = -np.ones((shape[0], *shape[2:]))
        images = len(params.img_ids)
        for k in range(shape[2]):
            for area in range(shape[3]):
                start = (k * shape[3] + area) * images
                found = [e for e in self.eval_imgs[start : start + images] if e is not None]
                ground_truths = sum(int((np.asarray(e["gt_ignore"]) == 0).sum()) for e in found)
                if not ground_truths:
                    continue
                order = np.argsort(-np.concatenate([e["dt_scores"] for e in found]), kind="mergesort")
                matched = np.concatenate([e["dt_matches"] for e in found], 1)[:, order] != 0
                counted = ~np.concatenate([e["dt_ignore"] for e in found], 1)[:, order].astype(bool)
                true = np.cumsum(matched & counted, 1, dtype=np.float64)
                false = np.cumsum(~matched & counted, 1, dtype=np.float64)
                for t in range(shape[0]):
                    recalls = true[t] / ground_truths
                    recall[t, k, area] = recalls[-1] if len(recalls) else 0
                    precisions = true[t] / (false[t] + true[t] + np.spacing(1))
                    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
                    reached = np.searchsorted(recalls, params.rec_thrs, side="left")
                    precision[t, :, k, area] = np.append(precisions, 0.0)[reached]
        self.eval = {"params": params, "precision": precision, "recall": recall}

    def metrics(self) -> dict[str, float]:
        """AP, AP50, AP75, APs/m/l (area), APr/c/f (frequency), AR@300 and ARs/m/l@300; -1 where nothing counts."""
        self.run()
        return {name: float(value) for name, value in self.results.items()}

    def category_ap(self) -> np.ndarray:
        """AP of each category in id order, after `metrics`; -1 for those without ground truth."""
        values = self.eval["precision"][:, :, :, 0]
        return np.where((values > -1).any((0, 1)), values.mean((0, 1)), -1.0)


class _GroundTruth(LVIS):
    """`lvis.LVIS` of a parsed json."""

    def __init__(self, dataset: dict[str, Any]):
        self.logger = logging.getLogger("lvis")
        self.dataset = dataset
        self._create_index()


class _Nothing(LVISResults):
    """Results without a single detection, which `lvis.LVISResults` cannot hold."""

    def __init__(self, ground_truth: LVIS):
        self.logger = logging.getLogger("lvis")
        self.dataset = {**ground_truth.dataset, "annotations": []}
        self._create_index()


def check_results(results: Any, path: str, iou_type: str, images: dict[int, Any], categories: set[int]) -> None:
    """Raise UserError naming file and entry unless `results` is a LVIS results list for these images."""
    if not isinstance(results, list):
        raise UserError(f"{path}: not a LVIS results file: the top level must be a list of detections")
    field = "bbox" if iou_type == "bbox" else "segmentation"
    for number, entry in enumerate(results):
        where = f"{path}: detection {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: not an object with image_id, category_id, score and {field}")
        for key in ("image_id", "category_id", "score", field):
            if key not in entry:
                raise UserError(f"{where}: no {key!r}, which iou_type {iou_type} needs")
        if entry["image_id"] not in images:
            raise UserError(f"{where}: image id {entry['image_id']} is not in the annotations")
        if entry["category_id"] not in categories:
            raise UserError(f"{where}: category id {entry['category_id']} is not in the annotations' categories")
        if not isinstance(entry["score"], int | float) or not math.isfinite(entry["score"]):
            raise UserError(f"{where}: score {entry['score']!r} is not a finite number")
        if iou_type == "bbox":
            box = entry["bbox"]
            numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
            if not numbers or not all(map(math.isfinite, box)):
                raise UserError(f"{where}: bbox {box!r} is not [x, y, width, height] of finite numbers")
        else:
            image = images[entry["image_id"]]
            rle = entry["segmentation"]
            if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
                raise UserError(f"{where}: segmentation is not a compressed RLE (size and counts)")
            if list(rle.get("size", ())) != [image["height"], image["width"]]:
                raise UserError(
                    f"{where}: RLE of size {rle.get('size')}, but image {image['id']} is "
                    f"{[image['height'], image['width']]}"
                )


def evaluate_file(annotations: str | Path, predictions: str | Path, iou_type: str) -> LVISAP:
    """Match a results file against a LVIS json; call `metrics` on the answer.

    Args:
      annotations: json in the LVIS layout.
      predictions: LVIS results json: a list of {image_id, category_id, score, bbox or segmentation}; the 300 best of
        an image count. Where entries have both, the box's area decides what is small (the package's rule).
      iou_type: "bbox" or "segm".

    Raises:
      UserError: either file is missing or not what it should be; the text names file and entry.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"iou_type must be bbox or segm, not {iou_type!r}")
    read_annotations(annotations)
    dataset = read_json(annotations)
    images = {image["id"]: image for image in dataset["images"]}
    categories = {category["id"] for category in dataset["categories"]}
    for image in dataset["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            if key not in image:
                raise AnnotationError(f"{annotations}: image {image['id']}: no {key!r}, which LVIS AP needs")
    for category in dataset["categories"]:
        if category.get("frequency") not in ("r", "c", "f"):
            raise AnnotationError(f"{annotations}: category {category['id']}: no frequency r, c or f")
    results = read_json(predictions)
    check_results(results, str(predictions), iou_type, images, categories)
    ground_truth = _GroundTruth(dataset)
    if not results:
        return LVISAP(ground_truth, _Nothing(ground_truth), iou_type)
    return LVISAP(ground_truth, LVISResults(ground_truth, results, max_dets=MAX_DETECTIONS), iou_type)
