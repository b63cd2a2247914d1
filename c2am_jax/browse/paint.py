"""One picture with its annotations drawn on it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from c2am_jax.browse.files import pixels_for
from c2am_jax.browse.survey import Picture
from c2am_jax.browse.suspects import Finding
from c2am_jax.data.box_masks import BadMask, rasterise
from c2am_jax.visualization.draw import draw
from c2am_jax.visualization.embedded import data_uri
from c2am_jax.visualization.names import font

SIDE = 720  # longest side of a drawing, pixels
LARGEST_ZOOM = 6
MARGIN = 0.3  # of the longer side, shown around the picture at most where boxes reach outside
GREY = 112
MARK, MARK_TEXT = (214, 0, 48), (255, 255, 255)
BADGE = 18  # pixels
LISTED = 12  # findings listed at a picture; objects of the others have a frame, but no number


class Drawing(NamedTuple):
    """A JPEG as a data URI, its width and height."""

    source: str
    size: tuple[int, int]


def drawing_of(picture: Picture, names: Sequence[str]) -> Drawing:
    """The picture with its boxes, masks and class names; suspects are framed in red and have the number of their list.

    Args:
      picture: `Picture.drawable`.
      names: of all classes.

    Raises:
      ImageFault, OSError: the file cannot be decoded.
    """
    assert picture.path is not None
    pixels = pixels_for(picture.path, picture.hw)
    corners = np.array([thing.corners for thing in picture.things]).reshape(-1, 4)
    masks = []
    for thing in picture.things:
        try:
            masks.append(rasterise(thing.entry.get("segmentation"), picture.hw).astype(bool))
        except BadMask:
            masks.append(np.zeros(picture.hw, bool))
    labels = [thing.label for thing in picture.things]
    crowds = [thing.crowd for thing in picture.things]
    return painted(pixels, corners, labels, masks, names, marks=numbered(picture.findings), crowds=crowds)


def numbered(findings: Sequence[Finding]) -> dict[int, int]:
    """Number of each suspect object: 1, 2, 3 in the order of the findings; by its place among the objects.

    0 for those whose findings are not listed.
    """
    places = dict.fromkeys(finding.place for finding in findings if finding.place is not None)
    listed = {finding.place for finding in findings[:LISTED]}
    return {place: number if place in listed else 0 for number, place in enumerate(places, 1)}


def painted(
    pixels: np.ndarray,
    corners: np.ndarray,
    labels: Sequence[int],
    masks: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    marks: Mapping[int, int] | None = None,
    crowds: Sequence[bool] | None = None,
) -> Drawing:
    """Objects on a picture, the small ones on top.

    Args:
      pixels: uint8 [h, w, 3].
      corners: x1, y1, x2, y2 of N objects in pixels, [N, 4].
      labels: N classes.
      masks: N bool [h, w].
      names: of all classes.
      marks: number of each suspect object, by its place; 0 for a frame alone.
      crowds: N, whether it is a crowd region.
    """
    marks = marks or {}
    height, width = pixels.shape[:2]
    margin = _margin(corners[list(marks)], (height, width))
    whole = max(height + 2 * margin, width + 2 * margin)
    zoom = min(SIDE / whole, LARGEST_ZOOM)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    edge = round(margin * zoom)
    kind = Image.Resampling.NEAREST if zoom > 2 else Image.Resampling.BICUBIC
    canvas = np.full((size[1] + 2 * edge, size[0] + 2 * edge, 3), GREY, np.uint8)
    inside = slice(edge, edge + size[1]), slice(edge, edge + size[0])
    canvas[inside] = np.asarray(Image.fromarray(pixels).resize(size, kind))
    area = np.prod(np.abs(corners[:, 2:] - corners[:, :2]), axis=1)
    order = sorted(range(len(labels)), key=lambda place: (place not in marks, area[place]))
    drawn_masks = []
    for place in order:
        mask = np.zeros(canvas.shape[:2], bool)
        mask[inside] = np.asarray(Image.fromarray(masks[place]).resize(size, Image.Resampling.NEAREST))
        drawn_masks.append(mask)
    scaled = corners * zoom + edge
    shown = [names[labels[place]] + (" (crowd)" if crowds and crowds[place] else "") for place in order]
    drawn = draw(canvas, scaled[order], [labels[place] for place in order], None, drawn_masks, texts=shown)
    image = Image.fromarray(drawn)
    pen = ImageDraw.Draw(image)
    for place, number in marks.items():
        _mark(pen, scaled[place], str(number or ""), image.size)
    return Drawing(data_uri(np.asarray(image)), image.size)


def _margin(corners: np.ndarray, hw: tuple[int, int]) -> int:
    """Pixels to show around the picture, so that boxes outside are seen."""
    if not len(corners):
        return 0
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    beyond = max(float(-low.min()), float((high - [hw[1], hw[0]]).max()))
    return int(min(np.ceil(beyond) + 4, MARGIN * max(hw))) if beyond > 1 else 0


def _mark(pen: ImageDraw.ImageDraw, corners: np.ndarray, number: str, size: tuple[int, int]) -> None:
    """A red frame outside the box, and a number at its lower right corner, all inside the drawing."""
    last = np.array([size[0] - 1, size[1] - 1] * 2)
    low, high = np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])
    frame = np.clip(np.rint(np.concatenate([low - 3, high + 3])), 0, last)
    pen.rectangle(frame.tolist(), outline=MARK, width=3 if number else 1)
    if not number:
        return
    side = max(BADGE, pen.textlength(number, font=font()) + 8)
    left, top = np.clip(frame[2:] - [side, BADGE], 0, last[:2] - [side, BADGE])
    pen.rectangle([left, top, left + side, top + BADGE], fill=MARK)
    pen.text((left + side / 2, top + BADGE / 2), number, font=font(), fill=MARK_TEXT, anchor="mm")
