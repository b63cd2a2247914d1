"""Detections drawn on an image."""

import colorsys
import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

GOLDEN = 0.618034  # consecutive classes get hues far apart
MASK_OPACITY = 0.45


def colour(label: int) -> tuple[int, int, int]:
    """RGB of a class, the same in every picture."""
    hue, shade = (label * GOLDEN) % 1, (label // 12) % 3
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9 - 0.2 * shade, 1.0 - 0.15 * shade)
    return round(255 * red), round(255 * green), round(255 * blue)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)  # comes with matplotlib


def draw(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    masks: Sequence[np.ndarray] | None = None,
    *,
    scale: int = 1,
) -> np.ndarray:
    """The image with masks, boxes and texts; later ones lie on top.

    Args:
      image: uint8 RGB [h, w, 3].
      boxes: [N, 4] xyxy, pixels.
      labels: classes, which choose the colours.
      texts: of each box, written on its upper border; empty for none.
      masks: bool [h, w] each; None for none.
      scale: how many times larger the picture is than the image, for texts that a small one has no room for.

    Returns:
      uint8 RGB [scale h, scale w, 3].
    """
    canvas = np.array(image)
    for mask, label in zip(masks if masks is not None else (), labels, strict=False):
        mask = np.asarray(mask, bool)
        tint = np.array(colour(label), np.float32)
        canvas[mask] = (1 - MASK_OPACITY) * canvas[mask] + MASK_OPACITY * tint
    picture = Image.fromarray(canvas.repeat(scale, 0).repeat(scale, 1))
    pen = ImageDraw.Draw(picture)
    side = min(picture.size)
    width, font = max(1, side // 200), _font(max(9, min(18, side // 30)))
    for box, label, text in zip((scale * np.asarray(boxes)).tolist(), labels, texts, strict=True):
        own = colour(label)
        pen.rectangle(box, outline=own, width=width)
        if text:
            left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
            x = min(max(box[0], 0), max(picture.width - right - 2, 0))
            y = max(box[1] - bottom - 2, 0)
            pen.rectangle((x, y, x + right + 2, y + bottom + 2), fill=own)
            luminance = 0.3 * own[0] + 0.59 * own[1] + 0.11 * own[2]
            pen.text((x + 1, y + 1), text, fill=(0, 0, 0) if luminance > 140 else (255, 255, 255), font=font)
    return np.asarray(picture)
