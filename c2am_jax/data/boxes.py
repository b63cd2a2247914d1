"""Boxes of annotations: which train, and whether they look like boxes at all."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from c2am_jax.data.box_masks import BadMask
from c2am_jax.data.entries import has_mask
from c2am_jax.wording import counted, noun

MIN_SIDE = 1.0  # reference rule: boxes narrower or lower than a pixel do not train
FITS = 0.5  # IoU with the box around the mask, from which a box fits it
OUTSIDE = 1.0  # pixels by which a box reaches beyond its picture before that is told
CORNERS_OUTSIDE = 0.05  # of the picture's side: so far outside, a box without a mask may be two corners
CORNERS_FIT = 0.8  # IoU with the mask's box of a box that is read in the right way


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


def beyond(xywh: Sequence[float], hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Pixels that a box x, y, width, height reaches outside at the left, top, right, bottom; negative inside."""
    x, y, w, h = xywh
    return -x, -y, x + w - hw[1], y + h - hw[0]


def looks_like_corners(xywh: Sequence[float], mask_box: Sequence[float] | None, hw: tuple[int, int]) -> bool:
    """Whether a bbox fits much better if its four numbers are read as x1, y1, x2, y2.

    With a mask, if only so it fits the box around the mask; without, if it reaches far outside the picture and so lies
    inside.

    Args:
      xywh: bbox of the annotation.
      mask_box: xyxy around its mask; None without a usable one.
      hw: of the picture.
    """
    x, y, w, h = xywh
    if x >= w or y >= h:
        return False
    if mask_box is not None:
        return iou(xywh, mask_box) >= CORNERS_FIT > iou((x, y, x + w, y + h), mask_box)
    _, _, right, bottom = beyond(xywh, hw)
    far = right > max(CORNERS_OUTSIDE * hw[1], 2) or bottom > max(CORNERS_OUTSIDE * hw[0], 2)
    return far and max(-x, -y, w - hw[1], h - hw[0]) <= OUTSIDE


def suspicion(
    annotation: Mapping[str, Any], mask_box: Sequence[float] | None, hw: tuple[int, int]
) -> Literal["corners", "degenerate", "outside", ""]:
    """What looks wrong with the box of an annotation, for preparation and `browse` alike: the first that applies.

    "corners": `looks_like_corners`. "degenerate": `trainable_box` refuses it. "outside": it reaches outside its picture
    by more than a pixel and is cut off there; not where the mask is unusable, as the object is left out. Arguments as
    of `looks_like_corners`.
    """
    xywh = annotation["bbox"]
    if looks_like_corners(xywh, mask_box, hw):
        return "corners"
    try:
        trainable_box(xywh, hw)
    except BadMask:
        return "degenerate"
    left_out = mask_box is None and has_mask(annotation)
    return "outside" if max(beyond(xywh, hw)) > OUTSIDE and not left_out else ""


@dataclasses.dataclass
class BoxCounts:
    """What many boxes look like.

    Attributes:
      boxes: how many were seen.
      outside: of them, how many reach beyond their picture and are kept.
      corners: how many look like x1, y1, x2, y2.
    """

    boxes: int = 0
    outside: int = 0
    corners: int = 0

    def add(self, kind: str) -> None:
        """Count a box of which `suspicion` said this."""
        self.boxes += 1
        self.outside += kind == "outside"
        self.corners += kind == "corners"

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
        boxes, told = counted(self.boxes, "box"), []
        if self.corners:
            look = noun(self.corners, "looks", "look")
            told.append(f"{self.corners:,} of {boxes} {look} like x1, y1, x2, y2: bbox has to be x, y, width, height")
        if self.outside:
            what = noun(
                self.outside,
                "reaches outside its picture: it is cut off at its border",
                "reach outside their picture: they are cut off at its border",
            )
            told.append(f"{self.outside:,} of {boxes} {what}")
        return told
