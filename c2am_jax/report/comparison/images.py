"""Images in which two evaluations differ most: what is annotated, what A detected, what B detected."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from c2am_jax.data.jpeg import ImageFault
from c2am_jax.data.lvis import CategoryTable, ImageNotFound
from c2am_jax.evaluation.ap_matching import Problem
from c2am_jax.evaluation.lvis_ap import Evidence
from c2am_jax.report.gallery import ImageReader
from c2am_jax.report.inspection import HIT, View, views
from c2am_jax.report.objects import Objects, Thing, opened
from c2am_jax.visualization.draw import draw
from c2am_jax.visualization.embedded import data_uri

_LOG = logging.getLogger(__name__)
PER_SIDE = 12  # images in which A is better, and in which B is
SIDE = 420  # longest side of a drawing, pixels
LARGEST_ZOOM = 4
MOST = 20  # detections drawn on an image, the best
BYTES = 8_000_000  # of all drawings together, as they stand in the page


class Look(NamedTuple):
    """What an evaluation makes of one image; rows are those of the evidence.

    Attributes:
      found: rows of the objects that a detection of their category lies on.
      missed: rows of the others.
      wrong: how many detections count as false.
      shown: rows of the detections from the threshold on, the best first.
    """

    found: frozenset[int]
    missed: frozenset[int]
    wrong: int
    shown: tuple[int, ...]

    @property
    def mistakes(self) -> int:
        """Objects that are not found and detections that are false."""
        return len(self.missed) + self.wrong


NOTHING = Look(frozenset(), frozenset(), 0, ())  # of an image without objects, and without detections


@dataclasses.dataclass(frozen=True)
class Trio:
    """Three drawings of an image.

    Attributes:
      image_id: of the image.
      sources: data URIs of JPEGs: annotated, A, B.
      size: width and height of each.
      counts: of A and of B: objects found, objects, false detections.
      only: names of the objects that only A finds, and that only B finds.
    """

    image_id: int
    sources: tuple[str, str, str]
    size: tuple[int, int]
    counts: tuple[tuple[int, int, int], tuple[int, int, int]]
    only: tuple[tuple[str, ...], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Trios:
    """Images in which A is better and in which B is, those that differ most first; and how many cannot be read."""

    better: list[Trio]
    worse: list[Trio]
    unreadable: int = 0


def looks(evidence: Evidence, threshold: float) -> dict[int, Look]:
    """What an evaluation makes of each image that has an object, or a detection of at least the score `threshold`.

    An object is found if a detection of its category lies on it (box IoU of at least 0.5), each detection on one
    object. A detection on none is false where the annotations are complete, by LVIS's rules.
    """
    return {view.image: _look(view, evidence, threshold) for view in views(evidence)}


def differing(ours: Mapping[int, Look], theirs: Mapping[int, Look], most: int) -> tuple[list[int], list[int]]:
    """Images in which A makes fewer mistakes than B, the largest difference first, and those in which B does."""
    gain = {}
    for image in sorted({*ours, *theirs}):
        a, b = ours.get(image, NOTHING), theirs.get(image, NOTHING)
        gain[image] = (b.mistakes - a.mistakes, len(a.found) - len(b.found))
    better = sorted((image for image, (less, _) in gain.items() if less > 0), key=lambda i: (-gain[i][0], -gain[i][1]))
    worse = sorted((image for image, (less, _) in gain.items() if less < 0), key=lambda i: gain[i])
    return better[:most], worse[:most]


def make_trios(
    evidence: Sequence[Evidence],
    masks: Sequence[Problem],
    categories: CategoryTable,
    thresholds: Sequence[float],
    images: Callable[[set[int]], ImageReader],
    *,
    most: int = PER_SIDE,
    budget: int = BYTES,
) -> Trios:
    """Draw the images in which A and B differ most; both directions take turns until the budget is spent.

    Args:
      evidence: of A and of B, of the same annotations.
      masks: of A and of B, where the same rows have their masks.
      categories: row k is class k.
      thresholds: of A and of B: detections of lower scores are left out.
      images: from the ids of the images needed to a reader, uint8 [h, w, 3] at the annotations' size.
      most: images of a direction.
      budget: bytes of all data URIs.
    """
    seen = [looks(one, threshold) for one, threshold in zip(evidence, thresholds, strict=True)]
    better, worse = differing(seen[0], seen[1], most)
    ids = evidence[0].image_ids
    read = images({int(ids[image]) for image in (*better, *worse)})
    found, spent, unreadable = Trios([], []), 0, 0
    with opened(evidence[0], masks[0]) as ours, opened(evidence[1], masks[1]) as theirs:
        turns = [(place, side, image) for side in (0, 1) for place, image in enumerate((better, worse)[side])]
        for _, side, image in sorted(turns):
            try:
                pixels = read(int(ids[image]))
                if pixels.shape[:2] != tuple(int(v) for v in masks[0].image_hw[image]):
                    raise ImageFault("size", f"is {pixels.shape[:2]}, its annotations say another")
            except (ImageFault, ImageNotFound, OSError) as fault:
                _LOG.warning("no picture of image %d: %s", ids[image], fault)
                unreadable += 1
                continue
            a, b = (of.get(image, NOTHING) for of in seen)
            trio = _trio(int(ids[image]), pixels, (a, b), (ours, theirs), categories)
            spent += sum(map(len, trio.sources))
            if spent > budget:
                break
            (found.better, found.worse)[side].append(trio)
    return dataclasses.replace(found, unreadable=unreadable)


def _trio(
    image_id: int, pixels: np.ndarray, seen: tuple[Look, Look], objects: tuple[Objects, Objects], table: CategoryTable
) -> Trio:
    a, b = seen
    truths = {row: objects[0].truth(row) for row in sorted(a.found | a.missed)}
    annotated = _drawing(pixels, list(truths.values()), table.names, scored=False)
    detected = [
        _drawing(pixels, [of.detection(row) for row in look.shown[:MOST]], table.names, scored=True)
        for look, of in zip(seen, objects, strict=True)
    ]

    def only(rows: frozenset[int]) -> tuple[str, ...]:
        return tuple(table.names[truths[row].label] for row in sorted(rows))

    return Trio(
        image_id,
        (data_uri(annotated), data_uri(detected[0]), data_uri(detected[1])),
        (annotated.shape[1], annotated.shape[0]),
        ((len(a.found), len(truths), a.wrong), (len(b.found), len(truths), b.wrong)),
        (only(a.found - b.found), only(b.found - a.found)),
    )


def _look(view: View, evidence: Evidence, threshold: float) -> Look:
    problem = evidence.problem
    regular = ~view.ignore
    kept = np.flatnonzero(view.score >= threshold)
    codes = view.image * problem.categories + view.label[kept]
    place = np.searchsorted(problem.not_exhaustive, codes)  # sorted: no search through all of them for each image
    incomplete = np.isin(codes, problem.not_exhaustive[place[place < len(problem.not_exhaustive)]])
    false = evidence.counts[view.detections[kept]] & ~incomplete
    free, wrong = np.ones(len(view.truths), bool), 0
    for d, counts in zip(kept, false, strict=True):
        own = free & (view.truth_label == view.label[d]) & (view.overlap[d] >= HIT)
        if own.any():
            free[np.where(own, view.overlap[d], -1).argmax()] = False
        else:
            wrong += int(counts)
    shown = view.detections[kept].tolist()
    hit, rows = ~free & regular, view.truths
    return Look(frozenset(rows[hit].tolist()), frozenset(rows[free & regular].tolist()), wrong, tuple(shown))


def _drawing(pixels: np.ndarray, things: Sequence[Thing], names: Sequence[str], *, scored: bool) -> np.ndarray:
    height, width = pixels.shape[:2]
    zoom = min(SIDE / max(height, width), LARGEST_ZOOM)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    empty = np.zeros((height, width), bool)
    masks = [
        np.asarray(Image.fromarray(empty if t.mask is None else t.mask).resize(size, Image.Resampling.NEAREST))
        for t in things
    ]
    boxes = np.array([thing.box * zoom for thing in things]).reshape(-1, 4)
    scores = [thing.score for thing in things] if scored else None
    return draw(resized, boxes, [thing.label for thing in things], scores, masks, names=names)
