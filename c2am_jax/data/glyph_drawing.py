"""Rendered characters on a drawn background, each with its mask: what the built-in sets are made of.

All of it is a function of the numbers that a generator gives.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 96
ATTEMPTS = 8  # places tried for one glyph


@dataclasses.dataclass(frozen=True)
class Face:
    """A font file of matplotlib, and the outline in pixels added to it, so that masks are more than lines."""

    file: str
    stroke: int

    @property
    def path(self) -> Path:
        """Where matplotlib keeps the file."""
        return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / self.file


@dataclasses.dataclass(frozen=True)
class Look:
    """How images look: sides in pixels, angles in degrees.

    Attributes:
      size: side of an image.
      glyph_sides: least and largest long side of a glyph.
      rotation: largest turn to either side.
      least_visible: share of a glyph that later ones leave uncovered.
      seed: of everything drawn.
    """

    size: int = 128
    glyph_sides: tuple[float, float] = (24.0, 48.0)
    rotation: float = 10.0
    least_visible: float = 0.7
    seed: int = 0


@functools.cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(face.path), FONT_SIZE)


@functools.cache
def ink(character: str, face: Face) -> Image.Image:
    """A character in one face, cropped to what is drawn: greyscale, 255 inside."""
    canvas = Image.new("L", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text(
        (FONT_SIZE // 2, FONT_SIZE // 4), character, fill=255, font=_font(face), stroke_width=face.stroke
    )
    return canvas.crop(canvas.getbbox())


def _resized(glyph: Image.Image, size: tuple[int, int]) -> Image.Image:
    return glyph.resize(size, Image.Resampling.BILINEAR)


@dataclasses.dataclass(frozen=True)
class Pen:
    """How characters are drawn: (character, face) -> glyph, and (glyph, (width, height)) -> a smaller glyph."""

    ink: Callable[[str, Face], Image.Image] = ink
    resized: Callable[[Image.Image, tuple[int, int]], Image.Image] = _resized


PILLOW = Pen()


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Colour gradient, soft noise and a few shapes: float [size, size, 3], 0-255."""
    corners = rng.uniform(0, 255, (2, 2, 3))
    corners = corners.mean((0, 1)) + 0.4 * (corners - corners.mean((0, 1)))
    t = np.linspace(0, 1, size)
    rows = corners[0][None] * (1 - t)[:, None, None] + corners[1][None] * t[:, None, None]
    pixels = rows[:, :1] * (1 - t)[None, :, None] + rows[:, 1:] * t[None, :, None]
    canvas = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(0, size, 2)
        w, h = rng.uniform(size / 8, size / 2, 2)
        colour = tuple(int(v) for v in np.clip(pixels[int(y), int(x)] + rng.uniform(-50, 50, 3), 0, 255))
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=colour)
    return np.asarray(canvas, np.float32) + rng.normal(0, 6, (size, size, 1))


def place(
    pixels: np.ndarray, glyph: Image.Image, look: Look, rng: np.random.Generator, pen: Pen = PILLOW
) -> np.ndarray:
    """Draw one glyph at random size, angle, place and colour; returns its mask, bool [size, size]."""
    size = look.size
    side = math.exp(rng.uniform(*np.log(look.glyph_sides)))
    scale = side / max(glyph.size)
    shape = (max(2, round(glyph.width * scale)), max(2, round(glyph.height * scale)))
    turned = pen.resized(glyph, shape).rotate(
        rng.uniform(-look.rotation, look.rotation), Image.Resampling.BILINEAR, expand=True
    )
    drawn = np.asarray(turned, np.float32) / 255
    height, width = drawn.shape
    top, left = rng.integers(0, max(size - height, 1)), rng.integers(0, max(size - width, 1))
    drawn = drawn[: size - top, : size - left]
    region = (slice(top, top + drawn.shape[0]), slice(left, left + drawn.shape[1]))
    behind = pixels[region].mean((0, 1))
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - behind).mean() < 80:
        colour = rng.uniform(0, 255, 3)
    pixels[region] += drawn[..., None] * (colour - pixels[region])
    mask = np.zeros((size, size), bool)
    mask[region] = drawn >= 0.5
    return mask


class Scene:
    """One image while it is drawn; later glyphs lie above earlier ones.

    Attributes:
      pixels: float [size, size, 3], 0-255.
    """

    def __init__(self, look: Look, rng: np.random.Generator, pen: Pen = PILLOW):
        """A background without glyphs."""
        self.look, self.rng, self._pen = look, rng, pen
        self.pixels = background(rng, look.size)
        self._drawn: list[tuple[int, np.ndarray, int]] = []  # number, what is visible of it, pixels when it was whole

    def add(self, number: int, character: str, faces: Sequence[Face]) -> bool:
        """Draw a character in one of its faces where it leaves the others visible; False if no place was found.

        `number` is what `visible` calls it.
        """
        before = self.pixels.copy()
        for _ in range(ATTEMPTS):
            glyph = self._pen.ink(character, faces[self.rng.integers(len(faces))])
            mask = place(self.pixels, glyph, self.look, self.rng, self._pen)
            if all((m & ~mask).sum() >= self.look.least_visible * whole for _, m, whole in self._drawn):
                covered = [(n, m & ~mask, whole) for n, m, whole in self._drawn]
                self._drawn = [*covered, (number, mask, mask.sum())]
                return True
            self.pixels[:] = before
        return False

    def visible(self) -> list[tuple[int, np.ndarray]]:
        """(number, mask) of what can be seen, in the order of drawing; a mask is bool [size, size]."""
        return [(number, mask) for number, mask, _ in self._drawn if mask.any()]

    def picture(self) -> Image.Image:
        """The image as it is written."""
        return Image.fromarray(np.clip(self.pixels, 0, 255).astype(np.uint8))
