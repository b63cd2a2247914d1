"""Boxes of annotations: which train, and whether they look like boxes at all."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from c2am_jax.data.box_masks import BadMask
from c2am_jax.wording import counted, noun

MIN_SIDE = 1.0  # reference rule: boxes narrower or lower than a pixel do not train
FITS = 0.5  # IoU with the box around the mask, from which a box fits it
OUTSIDE = 1.0  # pixels by which a box reaches beyond its picture before that is told
MANY = 0.25  # share of boxes reaching outside from which all are suspected


def trainable_box(xywh: list[float], hw: tuple[int, int]) -> np.ndarray:
    """Xyxy clipped to the image, float32 [4]; BadMask for what the reference's filter drops."""
    x, y, w, h = (float(value) for value in xywh)
    (left, right), (top, bottom) = (
        (min(max(low, 0.0), side), min(max(high, 0.0), side))
        for low, high, side in ((x, x + w, hw[1]), (y, y + h, hw[0]))
    )
    box = np.array([left, top, right, bottom], np.float32)
    if w < MIN_SIDE or h < MIN_SIDE or box[0] >= box[2] or box[1] >= box[3]:
        raise BadMask("box of less than a pixel or outside the image")
    return box


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes, xyxy."""
    (l1, t1, r1, b1), (l2, t2, r2, b2) = first, second
    inside = max(min(r1, r2) - max(l1, l2), 0) * max(min(b1, b2) - max(t1, t2), 0)
    union = (r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - inside
    return inside / union if union > 0 else 0.0


@dataclasses.dataclass
class BoxCounts:
    """What many boxes look like.

    Attributes:
      boxes: how many were seen.
      outside: of them, how many reach beyond their picture.
      corners: how many would be boxes inside their picture if they were x1, y1, x2, y2.
    """

    boxes: int = 0
    outside: int = 0
    corners: int = 0

    def add(self, box: Sequence[float], hw: tuple[int, int]) -> None:
        """Count a box x, y, width, height of a picture."""
        x, y, w, h = box
        self.boxes += 1
        self.outside += x < -OUTSIDE or y < -OUTSIDE or x + w > hw[1] + OUTSIDE or y + h > hw[0] + OUTSIDE
        self.corners += 0 <= x < w <= hw[1] and 0 <= y < h <= hw[0]

    def merge(self, others: Sequence["BoxCounts"]) -> None:
        """Add those of other parts."""
        for other in others:
            self.boxes, self.outside = self.boxes + other.boxes, self.outside + other.outside
            self.corners += other.corners

    def as_dict(self) -> dict[str, Any]:
        """For json."""
        return dataclasses.asdict(self)

    def suspicions(self) -> list[str]:
        """What is likely to be wrong with the boxes, in words."""
        if not self.outside:
            return []
        one = self.outside == 1
        told = f"{self.outside:,} of {counted(self.boxes, 'box')} "
        told += "reaches outside its picture" if one else "reach outside their picture"
        if self.outside >= MANY * self.boxes and self.corners >= 0.9 * self.boxes:
            read = noun(self.corners, "a box if it", "boxes if they")
            return [
                f"{told}, and {self.corners:,} would be {read} were x1, y1, x2, y2: bbox has to be x, y, width, height"
            ]
        return [f"{told}: {'it is' if one else 'they are'} cut off at its border"]
