"""What the two files of an evaluation say about single objects: boxes, masks, scores."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from c2am_jax.data.box_masks import BadMask, rasterise
from c2am_jax.evaluation.ap_matching import Problem
from c2am_jax.evaluation.lvis_ap import Evidence
from c2am_jax.report.inspection import boxes, entry


@dataclasses.dataclass(frozen=True)
class Thing:
    """An annotated or a detected object.

    Attributes:
      box: xyxy in pixels.
      label: class.
      mask: bool [h, w] of the whole image; None if it has none, or none that can be drawn.
      score: of a detection.
    """

    box: np.ndarray
    label: int
    mask: np.ndarray | None
    score: float = 0.0


class Objects:
    """Reads objects by their rows in the evidence.

    Args:
      evidence: whose rows are asked for.
      masks: where the same rows have their masks; a results file without masks gives boxes only.
      truths, detections: the two files of `masks`, open.
    """

    def __init__(self, evidence: Evidence, masks: Problem, truths: IO[bytes], detections: IO[bytes]):
        self._own, self._masks = evidence.problem, masks
        self._truth_file, self._detection_file = truths, detections
        self._labels = {"truth": self._own.truths.labels(), "detection": self._own.detections.labels()}

    def truth(self, row: int) -> Thing:
        """The annotated object of a row."""
        said = entry(self._masks.truths, row, self._truth_file)
        hw = self._masks.image_hw[self._own.truths.image[row]]
        return Thing(_xyxy(self._own.truths.box[row]), int(self._labels["truth"][row]), _mask(said, hw))

    def detection(self, row: int) -> Thing:
        """The detection of a row."""
        rows = np.array([row])
        # Boxes of the evidence that has them; only a file of masks alone needs its own file for them.
        box = boxes(self._own.detections, rows, self._detection_file)[0]
        said = entry(self._masks.detections, row, self._detection_file)
        hw = self._masks.image_hw[self._own.detections.image[row]]
        label, score = int(self._labels["detection"][row]), float(self._own.detections.score[row])
        return Thing(_xyxy(box), label, _mask(said, hw), score)


@contextmanager
def opened(evidence: Evidence, masks: Problem) -> Iterator[Objects]:
    """`Objects` while its files are open."""
    with open(masks.truth_file, "rb") as truths, open(masks.detection_file, "rb") as detections:
        yield Objects(evidence, masks, truths, detections)


def _mask(said: Mapping[str, Any], hw: np.ndarray) -> np.ndarray | None:
    try:
        return rasterise(said["segmentation"], (int(hw[0]), int(hw[1]))).astype(bool)
    except (KeyError, BadMask):  # no mask, or none that can be drawn: the box does
        return None


def _xyxy(box: np.ndarray) -> np.ndarray:
    return np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], np.float64)
