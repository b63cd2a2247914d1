"""Characters drawn from the outlines in a font's file, by arithmetic alone: the same pixels on every machine.

What Pillow draws changes with its version and its FreeType: hinting, the widening of strokes, the filter of a resize.
"""

import functools
import itertools
import math

import numpy as np
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.ttLib import TTFont
from PIL import Image

from c2am_jax.data.glyph_drawing import FONT_SIZE, Face, Pen

PIECES = 6  # straight pieces of a curve between two points
ONE = 1 << 12  # a whole pixel in sums of integers
MARGIN = 8  # pixels, as wide as the widest stroke


@functools.cache
def _font(face: Face) -> TTFont:
    return TTFont(face.path, lazy=True)


@functools.cache
def characters_of(face: Face) -> frozenset[str]:
    """The characters that a face has."""
    return frozenset(map(chr, _font(face).getBestCmap()))


@functools.cache
def ink(character: str, face: Face) -> Image.Image:
    """A character in one face, cropped to what is drawn: 255 inside, 0 outside."""
    inside = _widened(_filled(_contours(character, face)), face.stroke)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    cut = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.where(cut, 255, 0).astype(np.uint8))


def _contours(character: str, face: Face) -> list[np.ndarray]:
    """Closed polygons: float [n, 2], x and y downwards in pixels of `FONT_SIZE`."""
    font = _font(face)
    glyphs = font.getGlyphSet()
    pen = DecomposingRecordingPen(glyphs)
    glyphs[font.getBestCmap()[ord(character)]].draw(pen)
    scale = FONT_SIZE / font["head"].unitsPerEm
    contours, points = [], []
    for name, arguments in pen.value:
        if name == "moveTo":
            points = [arguments[0]]
        elif name == "lineTo":
            points.append(arguments[0])
        elif name == "qCurveTo":
            points += _curve(points[-1:], arguments)
        else:  # closePath
            contours.append(np.array(points, np.float64) * [scale, -scale])
            points = []
    return contours


def _curve(start: list[tuple[float, float]], arguments: tuple) -> list[tuple[float, float]]:
    """Points of TrueType's quadratic curve; between two points off the curve lies one on it."""
    if arguments[-1] is None:  # a contour with no point on the curve begins between its last and its first
        off = list(arguments[:-1])
        first = _middle(off[-1], off[0])
        start, arguments = [first], (*off, first)
    *off, end = arguments
    on = [_middle(a, b) for a, b in itertools.pairwise(off)] + [end]
    found, last = [], start[0]
    for control, to in zip(off, on, strict=True):
        for piece in range(1, PIECES + 1):
            t = piece / PIECES
            a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
            found.append(tuple(a * last[i] + b * control[i] + c * to[i] for i in (0, 1)))
        last = to
    return found


def _middle(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _filled(contours: list[np.ndarray]) -> np.ndarray:
    """The pixels whose middle the contours wind around, bool [H, W], with a margin."""
    points = np.concatenate(contours)
    low = np.floor(points.min(0)) - MARGIN
    width, height = (np.ceil(points.max(0)) + MARGIN - low).astype(int)
    winding = np.zeros((height, width + 1), np.int32)
    for contour in contours:
        start = contour - low
        for (x0, y0), (x1, y1) in zip(start.tolist(), np.roll(start, -1, 0).tolist(), strict=True):
            sign, (xa, ya), (xb, yb) = (1, (x0, y0), (x1, y1)) if y1 > y0 else (-1, (x1, y1), (x0, y0))
            for row in range(math.ceil(ya - 0.5), math.ceil(yb - 0.5)):  # those whose middle is in [ya, yb)
                x = xa + (row + 0.5 - ya) * ((xb - xa) / (yb - ya))
                winding[row, math.ceil(x - 0.5)] += sign
    return winding.cumsum(1)[:, :width] != 0


def _widened(inside: np.ndarray, radius: int) -> np.ndarray:
    """All pixels within `radius` of what is inside; the margin has room for them."""
    height, width = inside.shape
    before = np.pad(inside.cumsum(1), ((0, 0), (1, 0)))  # how many are inside left of each column
    columns, found = np.arange(width), inside.copy()
    for dy in range(-radius, radius + 1):
        reach = math.isqrt(radius * radius - dy * dy)
        near = before[:, np.minimum(columns + reach + 1, width)] > before[:, np.maximum(columns - reach, 0)]
        found[max(dy, 0) : height + min(dy, 0)] |= near[max(-dy, 0) : height - max(dy, 0)]
    return found


def resized(glyph: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A glyph of (width, height) = `size`: each pixel is the mean of the part of the old one that it covers."""
    across, down = (_shares(old, new) for old, new in zip(glyph.size, size, strict=True))
    total = down @ np.asarray(glyph, np.int64) @ across.T
    return Image.fromarray((total // ONE**2).astype(np.uint8))


def _shares(old: int, new: int) -> np.ndarray:
    """How much of each old pixel is in each new one, int64 [new, old]; a row sums to at most `ONE`."""
    low, high = np.arange(new)[:, None] * old, np.arange(1, new + 1)[:, None] * old  # in parts of 1 / new of an old one
    start, end = np.arange(old) * new, np.arange(1, old + 1) * new
    shared = np.minimum(high, end) - np.maximum(low, start)
    return np.maximum(shared, 0) * ONE // old


PEN = Pen(ink, resized)
