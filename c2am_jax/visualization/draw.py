"""Boxes, masks and names on a picture."""

import colorsys
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GOLDEN_ANGLE = 0.381966  # of the colour circle: hues of neighbouring classes lie far apart, and none comes back
MASK_OPACITY = 0.45
FONT_SIZE = 13
PADDING = 2  # pixels around a name
NAME_SHARE = 0.4  # of the picture's width that a name may take if its box is narrower
DARK, WHITE = (16, 16, 16), (255, 255, 255)
_Rectangle = tuple[float, float, float, float]


def class_colour(label: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture; RGB, 0-255."""
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.9, 0.75))[label // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@functools.cache
def font() -> ImageFont.FreeTypeFont:
    """Of names on pictures and captions above them."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), FONT_SIZE)


def fitting(text: str, ending: str, width: int) -> str:
    """`text` and `ending`, the text shortened until both are at most `width` pixels wide."""
    whole = f"{text} {ending}".strip()
    while text and font().getlength(whole) > width:
        text = text[:-1]
        whole = f"{text.rstrip()}… {ending}".strip()
    return whole


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
      names: of all classes; without, the number of the class is written.
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
    plates: list[_Rectangle] = []
    for index, (label, corner) in enumerate(zip(labels, corners, strict=True)):
        name = texts[index] if texts is not None else str(label) if names is None else names[label]
        room = max(corner[2] - corner[0], NAME_SHARE * width) - 2 * PADDING
        text = fitting(name, "" if scores is None else f"{float(scores[index]):.2f}", round(room))
        plates.append(_plate(pen.textlength(text, font=font()), corner, canvas.size, plates))
        _write(pen, text, plates[-1], class_colour(label))
    return np.asarray(canvas)


def _plate(
    text_width: float, corner: Sequence[float], size: tuple[int, int], taken: Sequence[_Rectangle]
) -> _Rectangle:
    """Where a name goes: above its box, inside, or below, the first that is inside the picture and covers no other."""
    width, height = text_width + 2 * PADDING, FONT_SIZE + 2 * PADDING
    left, top, _, bottom = corner
    x = max(0.0, min(left, size[0] - width))
    places = [(x, y, x + width, y + height) for y in (top - height, top, bottom, bottom - height)]
    inside = [place for place in places if place[1] >= 0 and place[3] <= size[1]]
    free = [place for place in inside if not any(_overlap(place, other) for other in taken)]
    return (free or inside or places[1:2])[0]


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _write(pen: ImageDraw.ImageDraw, text: str, plate: _Rectangle, colour: tuple[int, int, int]) -> None:
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.rectangle(plate, fill=colour)
    middle = (plate[1] + plate[3]) / 2
    pen.text((plate[0] + PADDING, middle), text, font=font(), fill=DARK if bright else WHITE, anchor="lm")
