"""Boxes, masks and names on a picture."""

import colorsys
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from c2am_jax.visualization.names import FONT_SIZE, fitting, font, readable
from c2am_jax.visualization.plates import Rectangle, plate

GOLDEN_ANGLE = 0.381966  # of the colour circle: hues of neighbouring classes lie far apart, and none comes back
MASK_OPACITY = 0.45
PADDING = 2  # pixels around a name
NAME_SHARE = 0.4  # of the picture's width that a name may take if its box is narrower
DARK, WHITE = (16, 16, 16), (255, 255, 255)


def class_colour(label: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture; RGB, 0-255."""
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.9, 0.75))[label // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tinted(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Mix `colour` into the pixels of a mask, in place, touching only its own rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mixed = (1 - MASK_OPACITY) * picture[window] + MASK_OPACITY * np.asarray(colour)
    picture[window] = np.where(mask[window][..., None], np.rint(mixed), picture[window]).astype(np.uint8)


def draw(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray | None = None,
    masks: Iterable[np.ndarray] | None = None,
    *,
    names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    enlarge: int = 1,
) -> np.ndarray:
    """A copy of the picture with detections on it; earlier ones lie on top, so give the best first.

    Args:
      image: uint8 [h, w, 3].
      boxes: xyxy in pixels, [D, 4].
      labels: classes [D], which decide the colours.
      scores: [D], written behind the names.
      masks: D bool arrays [h, w].
      names: of all classes, written as `readable`; without, the number of the class is written.
      texts: [D], written instead of the names.
      enlarge: whole factor by which the result is larger than `image`, so that names are readable on small pictures.

    Returns:
      uint8 [enlarge * h, enlarge * w, 3].

    Raises:
      ValueError: arrays that do not go together.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    drawn_masks = None if masks is None else list(masks)
    lengths = {len(boxes), len(labels), *(len(part) for part in (scores, drawn_masks, texts) if part is not None)}
    if len(lengths) > 1:
        raise ValueError(f"boxes, labels, scores, masks and texts are of different lengths: {sorted(lengths)}")
    picture = np.array(image, np.uint8)
    labels = [int(label) for label in labels]
    for label, mask in reversed(list(zip(labels, drawn_masks or (), strict=False))):
        if mask.shape != picture.shape[:2]:
            raise ValueError(f"a mask of {mask.shape} on a picture of {picture.shape[:2]}")
        _tinted(picture, np.asarray(mask, bool), class_colour(label))
    picture = picture.repeat(enlarge, 0).repeat(enlarge, 1)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    width, height = canvas.size
    line = max(1, round(max(width, height) / 400))
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    corners = np.clip(np.rint(np.concatenate([low, high], 1) * enlarge), 0, [width - 1, height - 1] * 2).tolist()
    for label, corner in reversed(list(zip(labels, corners, strict=True))):
        pen.rectangle(corner, outline=class_colour(label), width=line)
    boxes_drawn = np.array(corners, float).reshape(-1, 4)
    plates: list[Rectangle] = []
    for index, (label, corner) in enumerate(zip(labels, corners, strict=True)):
        name = texts[index] if texts is not None else str(label) if names is None else names[label]
        room = max(corner[2] - corner[0], NAME_SHARE * width) - 2 * PADDING
        text = fitting(readable(name), "" if scores is None else f"{float(scores[index]):.2f}", round(room))
        sides = pen.textlength(text, font=font()) + 2 * PADDING, FONT_SIZE + 2 * PADDING
        plates.append(plate(*sides, index, boxes_drawn, canvas.size, np.array(plates).reshape(-1, 4)))
        _write(pen, text, plates[-1], class_colour(label))
    return np.asarray(canvas)


def _write(pen: ImageDraw.ImageDraw, text: str, place: Rectangle, colour: tuple[int, int, int]) -> None:
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.rectangle(place, fill=colour)
    middle = (place[1] + place[3]) / 2
    pen.text((place[0] + PADDING, middle), text, font=font(), fill=DARK if bright else WHITE, anchor="lm")
