"""One look at every image: what is taken for what, and which objects are worth a picture.

Numbers of an evaluation say how much is wrong; this says where. Overlaps are those of boxes, whatever was scored.
Memory holds the evaluation's arrays, a number per ground truth, and a few candidates per category.
"""

import dataclasses
import heapq
import json
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import usable_rle
from c2am_jax.evaluation.ap_matching import ObjectTable, match
from c2am_jax.evaluation.lvis_ap import Evidence
from c2am_jax.evaluation.on_background import NEAR

KINDS = ("best", "worst", "missed", "false")
HIT = 0.5  # IoU from which a detection lies on an object
PER_CATEGORY = 4  # candidates of a kind that are kept


class Candidate(NamedTuple):
    """An object worth a picture; rows are those of the evidence, -1: none. The first field decides what is kept."""

    quality: float
    image: int
    truth: int
    detection: int
    overlap: float
    label: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What the look at all images found.

    Attributes:
      objects: ground truths of each category that count, [K].
      right: those whose best-scored detection is of their own category, [K].
      pairs: (category, taken for category, how often), most frequent first, [P, 3].
      candidates: for each of `KINDS`, by category, best first.
    """

    objects: np.ndarray
    right: np.ndarray
    pairs: np.ndarray
    candidates: dict[str, dict[int, list[Candidate]]]


class _Kept:
    """The few best candidates of each kind and category."""

    def __init__(self):
        self._heaps: dict[tuple[str, int], list[Candidate]] = {}

    def offer(self, kind: str, candidate: Candidate) -> None:
        heap = self._heaps.setdefault((kind, candidate.label), [])
        if len(heap) < PER_CATEGORY:
            heapq.heappush(heap, candidate)
        elif candidate > heap[0]:
            heapq.heapreplace(heap, candidate)

    def found(self) -> dict[str, dict[int, list[Candidate]]]:
        result: dict[str, dict[int, list[Candidate]]] = {kind: {} for kind in KINDS}
        for (kind, label), heap in sorted(self._heaps.items()):
            result[kind][label] = sorted(heap, reverse=True)
        return result


@dataclasses.dataclass(frozen=True)
class View:
    """Ground truths and detections of one image, the best detection first; rows are those of the evidence."""

    image: int
    truths: np.ndarray
    detections: np.ndarray
    truth_label: np.ndarray
    label: np.ndarray
    score: np.ndarray
    overlap: np.ndarray  # [D, G]
    ignore: np.ndarray
    known: np.ndarray
    share: np.ndarray  # of the image's area that each ground truth covers


def inspect(evidence: Evidence, threshold: float) -> Inspection:
    """Look at every image once.

    Confusion, at any score: of the detections that lie on an object (IoU 0.5), those that are right about another
    object left out, the one with the best score is what the object is taken for.
    Candidates, of detections with at least the score `threshold`, each with the object of its category that it overlaps
    most: best, that object outlined most closely; worst, least closely; missed, the largest objects without any such
    detection; false, the highest scores that match nothing and count.
    """
    problem = evidence.problem
    classes = problem.categories
    right, objects = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    kept, codes = _Kept(), [np.zeros(0, np.int64)]
    for view in views(evidence):
        regular = ~view.ignore
        np.add.at(objects, view.truth_label[regular], 1)
        own = view.label[:, None] == view.truth_label
        on = view.overlap >= HIT
        elsewhere = ~own & (own & on).any(1, keepdims=True)  # right about another object
        possible = on & ~elsewhere
        taken = possible.any(0) & regular
        first = possible.argmax(0) if len(view.label) else np.zeros(len(taken), int)
        instead = view.label[first[taken]]
        correct = instead == view.truth_label[taken]
        np.add.at(right, instead[correct], 1)
        codes.append((view.truth_label[taken] * classes + instead)[~correct])
        _objects(view, own, regular, np.where(possible.any(0), first, -1), threshold, kept)
        _false(view, evidence, threshold, kept)
    code, count = np.unique(np.concatenate(codes), return_counts=True)
    order = np.argsort(-count, kind="stable")
    pairs = np.stack([code // classes, code % classes, count], 1)[order]
    return Inspection(objects, right, pairs, kept.found())


def views(evidence: Evidence) -> Iterator[View]:
    """Image by image what lies in it; images without any object or detection are left out."""
    problem = evidence.problem
    truths, detections = problem.truths, problem.detections
    truth_label, label = truths.labels(), detections.labels()
    by_image = np.argsort(truths.image, kind="stable")
    by_score = np.lexsort((-detections.score, detections.image))
    images = np.arange(len(problem.image_hw) + 1)
    truth_start = np.searchsorted(truths.image[by_image], images)
    start = np.searchsorted(detections.image[by_score], images)
    with open(problem.detection_file, "rb") as file:
        for image, (height, width) in enumerate(problem.image_hw):
            g = by_image[truth_start[image] : truth_start[image + 1]]
            d = by_score[start[image] : start[image + 1]]
            if len(g) + len(d) == 0:
                continue
            overlap = np.zeros((len(d), len(g)))
            if len(g) and len(d):
                overlap = np.asarray(coco_mask.iou(boxes(detections, d, file), truths.box[g], [0] * len(g)))
            yield View(
                image,
                g,
                d,
                truth_label[g],
                label[d],
                detections.score[d],
                overlap,
                truths.ignore[g],
                truths.known[g],
                truths.area[g] / (height * width),
            )


def boxes(detections: ObjectTable, rows: np.ndarray, file: IO[bytes]) -> np.ndarray:
    """x, y, width, height of these detections, [N, 4]; of masks without boxes, the boxes around them."""
    found = np.array(detections.box[rows], np.float64)
    for at in np.flatnonzero(np.isnan(found[:, 0])):
        mask = entry(detections, int(rows[at]), file)["segmentation"]
        found[at] = coco_mask.toBbox(usable_rle(mask, mask["size"]))
    return found


def entry(objects: ObjectTable, row: int, file: IO[bytes]) -> dict:
    """What the json file says about a row."""
    file.seek(int(objects.offset[row]))
    return json.loads(file.read(int(objects.length[row])))


def _objects(view: View, own: np.ndarray, regular: np.ndarray, seen: np.ndarray, threshold: float, kept: _Kept) -> None:
    """Offer each object as well or badly outlined, or as missed; `seen` is the detection it is taken for, or -1."""
    near = np.where(own & (view.score >= threshold)[:, None], view.overlap, 0.0)  # [D, G]
    if len(near) and near.size:
        nearest = near.argmax(1)
        near = np.where(np.arange(near.shape[1]) == nearest[:, None], near, 0.0)
    for g in np.flatnonzero(regular):
        label = int(view.truth_label[g])
        d = int(near[:, g].argmax()) if len(near) else -1
        overlap = float(near[d, g]) if d >= 0 else 0.0
        if overlap >= NEAR:
            score, rows = float(view.score[d]), (int(view.truths[g]), int(view.detections[d]))
            kept.offer("worst", Candidate((1 - overlap) * score, view.image, *rows, overlap, label))
            if overlap >= HIT:
                kept.offer("best", Candidate(overlap * score, view.image, *rows, overlap, label))
        else:
            d = int(seen[g])
            detection, overlap = (int(view.detections[d]), float(view.overlap[d, g])) if d >= 0 else (-1, 0.0)
            kept.offer(
                "missed", Candidate(float(view.share[g]), view.image, int(view.truths[g]), detection, overlap, label)
            )


def _false(view: View, evidence: Evidence, threshold: float, kept: _Kept) -> None:
    """Offer the detections that the protocol counts as false at IoU 0.5."""
    problem = evidence.problem
    counts = evidence.counts[view.detections] & (view.score >= threshold)
    codes = view.image * problem.categories + view.label
    counts &= ~np.isin(codes, problem.not_exhaustive)
    for label in np.unique(view.label[counts]):
        rows, columns = np.flatnonzero(view.label == label), np.flatnonzero(view.truth_label == label)
        matched = np.zeros(len(rows), bool)
        if len(columns):
            ious = view.overlap[np.ix_(rows, columns)]
            matched = match(ious, view.ignore[None, columns], view.known[columns])[0][0, 0]
        for d in rows[~matched & counts[rows]]:
            g = int(view.overlap[d].argmax()) if view.overlap.shape[1] else -1
            overlap = float(view.overlap[d, g]) if g >= 0 else 0.0
            truth = int(view.truths[g]) if overlap >= NEAR else -1
            detection = int(view.detections[d])
            candidate = Candidate(float(view.score[d]), view.image, truth, detection, overlap, int(label))
            kept.offer("false", candidate)
