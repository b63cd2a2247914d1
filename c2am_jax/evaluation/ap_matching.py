"""Detections of one category against its ground truths: precision and recall by the LVIS protocol.

Needs numpy and pycocotools only, so that worker processes start quickly. Every rule is `lvis` 0.5.3's: the greedy match
in score order, ignored ground truths last, what has no area, what counts in an image that is not exhaustively
annotated, interpolation.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import usable_rle

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
AREA_NAMES = ("all", "small", "medium", "large")
BOUNDARY_RATIO = 0.02  # of the image's diagonal (Cheng et al., CVPR 2021)


@dataclasses.dataclass(frozen=True)
class ObjectTable:
    """Ground truths or detections, sorted by category, then image, then order (detections: the best first).

    Attributes:
      start: [K + 1], where each category's rows begin.
      image: index of the image, [N].
      score: of detections, [N].
      box: x, y, width, height, [N, 4]; of no use where masks are compared.
      area: [N]; NaN: the mask's.
      ignore: bool [N], of ground truths.
      known: bool [N]; False: a ground truth with id 0, which the package takes for no match.
      offset, length: where the entry stands in its json file, [N].
      rank: of detections, how many of their image come before them, of whatever category, [N].
    """

    start: np.ndarray
    image: np.ndarray
    score: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignore: np.ndarray
    known: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    rank: np.ndarray

    def labels(self) -> np.ndarray:
        """The class of each row, [N]."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def save(self, folder: Path) -> None:
        """Write each array to a file of its own in `folder`."""
        folder.mkdir(parents=True)
        for field in dataclasses.fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> "ObjectTable":
        """What `save` wrote, mapped into memory."""
        return cls(**{f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything that a worker needs for any category.

    Attributes:
      iou_type: "bbox", "segm" or "boundary".
      truths, detections: see `ObjectTable`.
      image_hw: [images, 2].
      not_exhaustive: sorted codes ``image * K + category`` of incompletely annotated pairs.
      truth_file, detection_file: the json files that offsets refer to.
    """

    iou_type: str
    truths: ObjectTable
    detections: ObjectTable
    image_hw: np.ndarray
    not_exhaustive: np.ndarray
    truth_file: str
    detection_file: str

    @property
    def categories(self) -> int:
        """How many categories there are, K."""
        return len(self.truths.start) - 1


@dataclasses.dataclass(frozen=True)
class CategoryResult:
    """Numbers of one category.

    Attributes:
      precision: [IoU threshold, recall threshold, area range]; -1 where nothing counts.
      recall: [IoU threshold, area range]; -1 where nothing counts.
      scores, hits: of detections of any size that count at IoU 0.5, and whether they hit; for calibration.
      ground_truths: that count, of any size.
      pooled: scores of all detections of any size, [D], and what each is at each IoU threshold, uint8 [T, D]: 0 does
        not count, 1 false, 2 a hit.
      ranks: how many detections of their image come before them, [D].
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    ground_truths: int
    pooled: tuple[np.ndarray, np.ndarray]
    ranks: np.ndarray


def evaluate_categories(problem: Problem, categories: Sequence[int]) -> Iterator[CategoryResult]:
    """Results of these categories, one after the other."""
    with open(problem.truth_file, "rb") as truths, open(problem.detection_file, "rb") as detections:
        for category in categories:
            yield _evaluate(problem, category, truths, detections)


def _evaluate(problem: Problem, category: int, truth_file, detection_file) -> CategoryResult:
    truths, detections = problem.truths, problem.detections
    gt = slice(int(truths.start[category]), int(truths.start[category + 1]))
    dt = slice(int(detections.start[category]), int(detections.start[category + 1]))
    masks = problem.iou_type != "bbox"
    gt_image, dt_image = np.asarray(truths.image[gt]), np.asarray(detections.image[dt])
    dt_score = np.asarray(detections.score[dt])
    gt_area, dt_area = np.asarray(truths.area[gt]), np.array(detections.area[dt])
    dt_box, dt_rank = np.asarray(detections.box[dt]), np.asarray(detections.rank[dt])
    dt_mask = _masks(problem, detections, dt, detection_file) if masks else []
    if masks and len(dt_area):
        unknown = np.isnan(dt_area)
        if unknown.any():
            # One by one: pycocotools 2.0 counts a list of more than 255 masks in a byte.
            dt_area[unknown] = [coco_mask.area(m) for m, u in zip(dt_mask, unknown, strict=True) if u]
            some = dt_area > 0  # an empty mask does not count, as a box without area does not
            dt_image, dt_score, dt_area, dt_rank = dt_image[some], dt_score[some], dt_area[some], dt_rank[some]
            dt_box, dt_mask = dt_box[some], [m for m, s in zip(dt_mask, some, strict=True) if s]
    small, large = AREA_RANGES[:, :1], AREA_RANGES[:, 1:]
    gt_ignore = np.asarray(truths.ignore[gt]) | (gt_area < small) | (gt_area > large)  # [area, N]
    codes = dt_image.astype(np.int64) * problem.categories + category
    dt_ignore = np.isin(codes, problem.not_exhaustive) | (dt_area < small) | (dt_area > large)

    shape = len(AREA_RANGES), len(IOU_THRESHOLDS), len(dt_image)
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    bounds = np.searchsorted(dt_image, [gt_image, gt_image + 1]) if len(gt_image) else np.zeros((2, 0), int)
    for first in np.flatnonzero(np.r_[True, gt_image[1:] != gt_image[:-1]]) if len(gt_image) else ():
        of_image = slice(first, int(np.searchsorted(gt_image, gt_image[first] + 1)))
        rows = slice(int(bounds[0, first]), int(bounds[1, first]))
        if rows.start == rows.stop:
            continue
        if masks:
            own = slice(gt.start + of_image.start, gt.start + of_image.stop)
            ious = _mask_ious(problem, dt_mask[rows], _masks(problem, truths, own, truth_file))
        else:
            boxes = dt_box[rows], np.asarray(truths.box[gt])[of_image]
            ious = coco_mask.iou(*boxes, [0] * (of_image.stop - of_image.start))
        known = np.asarray(truths.known[gt])[of_image]
        matched[:, :, rows], ignored[:, :, rows] = match(ious, gt_ignore[:, of_image], known)
    # A detection without a match does not count outside the range of areas, or where annotations are incomplete.
    ignored |= ~matched & dt_ignore[:, None]
    return _accumulate(dt_score, dt_rank, matched, ignored, (~gt_ignore).sum(1), bool(len(gt_image) + len(dt_image)))


def match(ious: np.ndarray, ignore: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matches in one image, for all ranges of areas A and IoU thresholds T at once.

    Args:
      ious: [D, G], detections in score order.
      ignore: bool [A, G], ground truths that do not count.
      known: bool [G]; False for an id of 0, whose match the package does not see.

    Returns:
      Whether each detection has a match, and whether that is with an ignored ground truth: bool [A, T, D] each.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    areas, (count, truths) = len(ignore), ious.shape
    free = np.ones((areas, len(thresholds), truths), bool)
    matched, to_ignored = (np.zeros((areas, len(thresholds), count), bool) for _ in range(2))
    for d in range(count):
        row = ious[d]
        if row.max() < thresholds[0]:
            continue
        possible = free & (row >= thresholds[:, None])
        regular = possible & ~ignore[:, None]
        chosen = np.where(regular.any(-1, keepdims=True), regular, possible)
        # The best of them; the last one of equals, as the package goes on for "not smaller".
        best = truths - 1 - np.where(chosen, row, -1.0)[..., ::-1].argmax(-1)
        found = chosen.any(-1)
        a, t = np.nonzero(found)
        g = best[a, t]
        free[a, t, g] = False
        matched[a, t, d] = known[g]
        to_ignored[a, t, d] = ignore[a, g]
    return matched, to_ignored


def _accumulate(score, rank, matched, ignored, truths, present) -> CategoryResult:
    precision = -np.ones((len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS), len(AREA_RANGES)))
    recall = -np.ones((len(IOU_THRESHOLDS), len(AREA_RANGES)))
    order = np.argsort(-score, kind="stable")
    counts = ~ignored[0, 0][order]
    scores, hits = score[order][counts], matched[0, 0][order][counts]
    pooled = score, np.where(ignored[0], 0, 1 + matched[0]).astype(np.uint8)
    for area, total in enumerate(truths):
        if not total or not present:
            continue
        counted = ~ignored[area][:, order]
        true = np.cumsum(matched[area][:, order] & counted, 1).astype(float)
        false = np.cumsum(~matched[area][:, order] & counted, 1).astype(float)
        recall[:, area] = true[:, -1] / total if true.shape[1] else 0
        precision[..., area] = interpolated(true, false, total)
    return CategoryResult(precision, recall, scores, hits, int(truths[0]), pooled, rank)


def interpolated(true: np.ndarray, false: np.ndarray, total: int) -> np.ndarray:
    """Precision at each recall threshold, [T, R].

    Args:
      true, false: how many hits and false detections there are up to each place of the ranking, [T, D].
      total: of ground truths.
    """
    recalls, precisions = true / total, true / (false + true + np.spacing(1))
    precisions = np.maximum.accumulate(precisions[:, ::-1], 1)[:, ::-1]
    found = np.zeros((len(true), len(RECALL_THRESHOLDS)))
    for t in range(len(true)):
        found[t] = np.append(precisions[t], 0.0)[np.searchsorted(recalls[t], RECALL_THRESHOLDS, side="left")]
    return found


def pooled_ap(results: Sequence[CategoryResult]) -> float:
    """AP-pool of some categories, 0 to 1: their detections in one ranking by score; -1 without ground truths.

    It tells how comparable the scores of different categories are (Dave et al., "Evaluating Large-Vocabulary Object
    Detectors: The Devil is in the Details", 2021); each object counts alike, whatever its category.
    """
    total = sum(result.ground_truths for result in results)
    if not total:
        return -1.0
    score = np.concatenate([result.pooled[0] for result in results])
    kind = np.concatenate([result.pooled[1] for result in results], 1)[:, np.argsort(-score, kind="stable")]
    found = []
    for row in kind:
        hit = row[row > 0] == 2
        recall, precision = np.cumsum(hit) / total, np.cumsum(hit) / (np.arange(len(hit)) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        found.append(np.append(best, 0.0)[np.searchsorted(recall, RECALL_THRESHOLDS, side="left")].mean())
    return float(np.mean(found))


def _masks(problem: Problem, objects: ObjectTable, rows: slice, file) -> list[dict]:
    """Run-length encoded masks, read from their file.

    Those of detections were checked when the file was read; a truth's mask that is not usable becomes an empty one.
    """
    found = []
    for row in range(rows.start, rows.stop):
        file.seek(int(objects.offset[row]))
        segmentation = json.loads(file.read(int(objects.length[row]))).get("segmentation")
        if objects is problem.truths:
            height, width = (int(side) for side in problem.image_hw[objects.image[row]])
            segmentation = usable_rle(segmentation, (height, width))
        found.append(segmentation)
    return found


def _mask_ious(problem: Problem, detections: list[dict], truths: list[dict]) -> np.ndarray:
    ious = coco_mask.iou(detections, truths, [0] * len(truths))
    if problem.iou_type == "boundary" and (ious >= IOU_THRESHOLDS[0]).any():
        edges = coco_mask.iou([boundary(m) for m in detections], [boundary(m) for m in truths], [0] * len(truths))
        ious = np.minimum(ious, edges)
    return ious


def boundary(rle: dict) -> dict:
    """The mask's pixels within 2 % of the image's diagonal of its contour, or of the image's border.

    Boundary IoU of Cheng et al. (CVPR 2021): the mask minus its erosion by a square, as their code has it.
    """
    mask = coco_mask.decode(rle).astype(bool)
    height, width = mask.shape
    steps = max(1, int(round(BOUNDARY_RATIO * np.hypot(height, width))))
    padded = np.pad(mask, steps + 1).astype(np.int32)
    sums = padded.cumsum(0).cumsum(1)
    side = 2 * steps + 1
    window = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    inner = window[:height, :width] == side * side
    return coco_mask.encode(np.asfortranarray(mask & ~inner).view(np.uint8))
