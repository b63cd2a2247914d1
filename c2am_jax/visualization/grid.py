"""Pictures side by side, under captions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from c2am_jax.visualization.names import FONT_SIZE, fitting, font

GAP = 6
CAPTION = FONT_SIZE + 6  # pixels of height
BACKGROUND, TEXT = (255, 255, 255), (32, 32, 32)


class Captioned(NamedTuple):
    """A picture, uint8 [h, w, 3], and what stands above it."""

    pixels: np.ndarray
    caption: str


def grid(rows: Sequence[Sequence[Captioned]]) -> np.ndarray:
    """All pictures on one sheet, uint8 [H, W, 3]; a column is as wide as its widest picture, a row as its highest.

    Args:
      rows: at least one picture; rows may differ in length.
    """
    columns = max(len(row) for row in rows)
    widths = [max(row[c].pixels.shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [CAPTION + max((cell.pixels.shape[0] for cell in row), default=0) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP * (columns + 1), sum(heights) + GAP * (len(rows) + 1)), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for cell, width in zip(row, widths, strict=False):
            pen.text((left, top), fitting(cell.caption, "", width), font=font(), fill=TEXT)
            sheet.paste(Image.fromarray(cell.pixels), (left, top + CAPTION))
            left += width + GAP
        top += height + GAP
    return np.asarray(sheet)
