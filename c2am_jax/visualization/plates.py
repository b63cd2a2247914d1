"""Where the names of boxes go: beside their boxes, where they hide the least."""

from collections.abc import Sequence

import numpy as np

Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2

OVER_NAME = 3.0  # cost of hiding another name; hiding a whole object costs 1
LATER = 0.01  # cost of each place further back in the order of places


def plate(
    width: float, height: float, own: int, boxes: np.ndarray, size: tuple[int, int], taken: np.ndarray
) -> Rectangle:
    """The place of a name's plate inside the picture.

    Places are tried above, below, beside and inside the box. A place costs the share of each box that it hides, so a
    corner of a large object is hidden before a small object is, and more where it hides another name.

    Args:
      width, height: of the plate, pixels.
      own: which of the boxes it names.
      boxes: xyxy of all boxes in the picture, [D, 4].
      size: width and height of the picture.
      taken: xyxy of the plates that are there, [P, 4].
    """
    places = _places(width, height, boxes[own], size)
    cost = _hidden(places, boxes).sum(1) + OVER_NAME * (_hidden(places, taken) > 0).sum(1)
    best = places[int((cost + LATER * np.arange(len(places))).argmin())]
    return (float(best[0]), float(best[1]), float(best[2]), float(best[3]))


def _places(width: float, height: float, box: Sequence[float] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Possible plates of a box, the usual ones first, [L, 4], all inside the picture."""
    left, top, right, bottom = (float(v) for v in box)
    corners = [(x, y) for y in (top - height, bottom + 1) for x in (left, right + 1 - width)]
    corners += [(x, y) for x in (right + 1, left - width) for y in (top, bottom + 1 - height)]
    corners += [(left, top), (left, bottom + 1 - height)]
    most = np.maximum(np.array(size, float) - [width, height], 0)
    low = np.array(corners)
    moved = np.clip(low, 0, most)
    stays = moved == low
    # Sliding along the box keeps a plate beside it; sliding onto the box is what the last two places are for.
    found = moved[np.concatenate([stays[:4, 1], stays[4:8, 0], [True, True]])]
    return np.concatenate([found, found + [width, height]], 1)


def _hidden(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The share of each box that each place hides, [L, D]."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    return common / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1), 1)
