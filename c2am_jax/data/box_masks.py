"""Instance masks on the host: polygons and RLE to run lengths, the crop to the frame of the box, packing.

Every segmentation becomes column-wise run lengths first (pycocotools rasterises polygons), are checked there, and only
the pixels that the box touches are ever expanded: the cost follows the instance, not the image.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MASK_SIZE = 112
MOST_DIGITS = 8  # of a run length: 40 bits
_CUT = "RLE whose counts are cut off or hold a wrong character"
_NO_COUNT = "RLE with a run length that is no count of pixels"
_WRONG_SUM = "RLE whose runs do not sum to the {} pixels of the image"


class BadMask(ValueError):
    """A segmentation that cannot be rasterised; the text says why, `place` which of several it is."""

    def __init__(self, text: str, place: int = 0):
        """`place`: among the masks that were given."""
        super().__init__(text)
        self.place = place


def is_absent(segmentation: Any) -> bool:
    """Whether there is no segmentation at all: null (or no key) and an empty list are the same."""
    return segmentation in (None, [], {})


def run_lengths(segmentation: Any, hw: tuple[int, int]) -> np.ndarray:
    """Polygons or RLE of an annotation -> int64 [R] lengths of runs of 0, 1, 0, ..., column by column.

    Polygons are rasterised by pycocotools and united; those of fewer than three points are left out.

    Raises:
      BadMask: no mask, or no polygon with three points; coordinates that are odd in number, not finite, or beyond the
        image by more than its longer side; RLE of another image size, undecodable, or whose runs do not sum to the
        image's pixels (pycocotools would loop, or show whatever lay in memory).
    """
    if is_absent(segmentation):
        raise BadMask("no mask")
    if isinstance(segmentation, list):
        return _decoded(_rle_of_polygons(segmentation, hw)["counts"])
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise BadMask("segmentation is neither polygons nor RLE")
    size, counts = segmentation["size"], segmentation["counts"]
    if size != list(hw):
        raise BadMask(f"RLE of size {size} in an image of {list(hw)}")
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count <= math.prod(hw) for count in counts):
            raise BadMask(_NO_COUNT)
        lengths = np.array(counts, np.int64)
    elif isinstance(counts, str | bytes):
        lengths = _decoded(counts if isinstance(counts, bytes) else _bytes(counts))
    else:
        raise BadMask("RLE whose counts are neither a list nor a string")
    pixels = math.prod(hw)
    if lengths.sum() != pixels or lengths.min() < 0 or lengths.max() > pixels:
        raise BadMask(_WRONG_SUM.format(pixels))
    return lengths


def checked_rle(segmentation: Any, hw: tuple[int, int]) -> dict[str, Any]:
    """Polygons or RLE of an annotation as compressed RLE that pycocotools can be given. BadMask as `run_lengths`."""
    if isinstance(segmentation, list) and not is_absent(segmentation):
        return _rle_of_polygons(segmentation, hw)
    lengths = run_lengths(segmentation, hw)
    if not isinstance(segmentation["counts"], list):
        return segmentation
    return coco_mask.frPyObjects({"size": list(hw), "counts": lengths.tolist()}, *hw)  # pyright: ignore


def usable_rle(segmentation: Any, hw: tuple[int, int]) -> dict[str, Any]:
    """`checked_rle`; for a mask that is not usable the one without a pixel, which no other matches."""
    try:
        return checked_rle(segmentation, hw)
    except BadMask:
        return coco_mask.frPyObjects({"size": list(hw), "counts": [math.prod(hw)]}, *hw)  # pyright: ignore


def check_compressed(texts: Sequence[str], pixels: Sequence[int]) -> None:
    """Check compressed counts of N masks at once, a few microseconds each.

    Args:
      texts: N strings.
      pixels: of the N images.

    Raises:
      BadMask: as `run_lengths`, of the first wrong one, whose place among them is its `place`.
    """
    lengths, starts = _decoded_together([_bytes(text) for text in texts])
    wanted = np.asarray(pixels, np.int64)
    mask = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(lengths)))
    outside = (lengths < 0) | (lengths > wanted[mask])
    wrong = np.bincount(mask, np.where(outside, 0, lengths), len(starts)) != wanted  # exact: sums are below 2**53
    wrong[mask[outside]] = True
    if wrong.any():
        place = int(wrong.argmax())
        raise BadMask(_WRONG_SUM.format(wanted[place]), place)


def _rle_of_polygons(segmentation: list[Any], hw: tuple[int, int]) -> Any:
    polygons = [_checked_polygon(polygon, hw) for polygon in segmentation]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        raise BadMask("no polygon with at least 3 points")
    rles: list[Any] = coco_mask.frPyObjects(polygons, *hw)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return rles[0] if len(rles) == 1 else coco_mask.merge(rles)


def _checked_polygon(polygon: Any, hw: tuple[int, int]) -> list[float]:
    """Coordinates x, y, x, y, ... Far ones are refused: the rasteriser walks along every edge."""
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise BadMask("polygon that is not a list of numbers")
    try:
        points = np.array(polygon, np.float64)
    except OverflowError:  # an integer beyond floats
        points = np.array([np.inf])
    if len(points) % 2 or not np.isfinite(points).all():
        raise BadMask("polygon with an odd number of coordinates or a non-finite one")
    reach = max(hw)
    if len(points) and (points.min() < -reach or points.max() > 2 * reach):
        raise BadMask("polygon that reaches beyond the image by more than the image's longer side")
    return polygon


def _decoded(text: bytes) -> np.ndarray:
    """COCO's compressed counts: 5 bits per character, and from the fourth on the difference to the one two before."""
    code = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(code) or code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise BadMask(f"{_CUT}{_hint(text)}")
    lengths, _, digits = _values(code)
    if digits.max() > MOST_DIGITS:
        raise BadMask(_NO_COUNT)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


def _decoded_together(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """`_decoded` of many texts at once.

    Returns:
      int64 run lengths of all texts, one behind the other, and where each begins.
    """
    code = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    sizes = np.array([len(text) for text in texts])
    last = np.cumsum(sizes) - 1  # of each text
    text = np.repeat(np.arange(len(texts)), sizes)
    cut = (sizes == 0) | (code[np.minimum(last, len(code) - 1)] & 32 > 0 if len(code) else True)
    cut[text[(code < 0) | (code > 63)]] = True
    if cut.any():
        place = int(cut.argmax())
        raise BadMask(f"{_CUT}{_hint(texts[place])}", place)
    lengths, end, digits = _values(code)
    if digits.max() > MOST_DIGITS:
        raise BadMask(_NO_COUNT, int(text[end[digits.argmax()]]))
    starts = np.searchsorted(end, last - sizes + 1)
    runs = np.diff(starts, append=len(lengths))
    at = np.arange(len(lengths)) - np.repeat(starts, runs)
    # Chains of one parity: runs 1, 3, 5, ... and 2, 4, 6, ... of a mask; run 0 stands alone.
    order = np.lexsort((at, at % 2, np.repeat(np.arange(len(starts)), runs)))
    sums = lengths[order].cumsum()
    first = (at <= 2)[order]
    before = np.where(first, sums - lengths[order], 0)
    chain = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    found = np.empty_like(lengths)
    found[order] = sums - before[chain]
    return found, starts


def _values(code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of 5-bit groups, low ones first: their values, where each ends, how many groups each has."""
    end = np.flatnonzero(code & 32 == 0)
    start = np.empty_like(end)
    start[0], start[1:] = 0, end[:-1] + 1
    digits = end - start + 1
    place = np.minimum(np.arange(len(code)) - np.repeat(start, digits), MOST_DIGITS)
    values = np.add.reduceat((code & 31) << (5 * place), start)
    return values - np.where(code[end] & 16, 1 << (5 * np.minimum(digits, MOST_DIGITS)), 0), end, digits


def _bytes(text: str) -> bytes:
    """What pycocotools makes of counts that are text: what is checked has to be what it reads."""
    return text.encode("utf-8", "surrogatepass")


def _hint(text: bytes) -> str:
    return ", as str(bytes) would have: decode them" if text[:2] in (b"b'", b'b"') else ""


def _expanded(lengths: np.ndarray, hw: tuple[int, int], left: int, right: int) -> np.ndarray:
    """Columns left..right of the raster: uint8 [right - left, h] of 0 and 1."""
    height = hw[0]
    ends = np.cumsum(lengths)
    first, last = np.searchsorted(ends, left * height, "right"), np.searchsorted(ends, right * height, "left")
    inside = lengths[first : last + 1].copy()
    inside[0] = ends[first] - left * height
    inside[-1] -= ends[last] - right * height
    values = (np.arange(first, last + 1) & 1).astype(np.uint8)
    return np.repeat(values, inside).reshape(right - left, height)


def rasterise(segmentation: Any, hw: tuple[int, int]) -> np.ndarray:
    """Polygons or RLE of an annotation -> uint8 [h, w] of 0 and 1, pycocotools' raster. BadMask as `run_lengths`."""
    return _expanded(run_lengths(segmentation, hw), hw, 0, hw[1]).T


def box_mask(segmentation: Any, box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """`mask_of_runs` of an annotation's polygons or RLE. BadMask as `run_lengths` and `mask_of_runs`."""
    return mask_of_runs(run_lengths(segmentation, hw), box, hw)


def mask_of_runs(lengths: np.ndarray, box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """`box_frame` of a raster, of which only the pixels under the box are made.

    Args:
      lengths: of its runs, see `run_lengths`.
      box: xyxy in pixels, inside the image.
      hw: of the image.

    Returns:
      uint8 [MASK_SIZE, MASK_SIZE].

    Raises:
      BadMask: the mask covers no pixel of the image.
    """
    if not lengths[1::2].any():
        raise BadMask("mask lies outside the image")
    x1, y1, x2, y2 = box.tolist()
    left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
    touched = _expanded(lengths, hw, left, right)[:, top:bottom].T
    return box_frame(np.ascontiguousarray(touched), box - np.array([left, top, left, top], np.float64))


def bounding_box(lengths: np.ndarray, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box around a mask with these runs, xyxy in pixels; the mask has a pixel."""
    height, runs = hw[0], lengths[1::2]
    first = lengths.cumsum()[: 2 * len(runs) : 2]
    if not runs.all():
        first, runs = first[runs > 0], runs[runs > 0]
    top = first % height
    left, right = int(first[0]) // height, int(first[-1] + runs[-1] - 1) // height + 1
    bottom = int((top + runs).max())
    if bottom > height:  # a run that goes on in the next column has both borders
        return left, 0, right, height
    return left, int(top.min()), right, bottom


def runs_and_box(segmentation: Any, hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """`run_lengths` of a mask that has a pixel, and its `bounding_box`. BadMask as there, or without a pixel."""
    lengths = run_lengths(segmentation, hw)
    if not lengths[1::2].any():
        raise BadMask("mask lies outside the image")
    return lengths, bounding_box(lengths, hw)


def box_frame(raster: np.ndarray, box: np.ndarray, size: int = MASK_SIZE) -> np.ndarray:
    """The mask in the frame of its box: uint8 [size, size], bilinear at cell centres, at least 0.5.

    Args:
      raster: 0 and 1, [h, w].
      box: xyxy in pixels of the raster.
      size: cells per side.
    """

    (height, width), (x1, y1, x2, y2) = raster.shape, box.tolist()
    (top, bottom, fy), (left, right, fx) = _neighbours(y1, y2, height, size), _neighbours(x1, x2, width, size)
    wide = raster.astype(np.float32)
    rows = wide.take(top, 0) * (1 - fy)[:, None]
    rows += wide.take(bottom, 0) * fy[:, None]
    values = rows.take(left, 1)
    values *= 1 - fx
    values += rows.take(right, 1) * fx
    return (values >= 0.5).view(np.uint8)


def _neighbours(low: float, high: float, length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels between which each cell of an axis lies, and the second one's weight."""
    at = low + (np.arange(size) + 0.5) * (high - low) / size - 0.5
    # Only pixels that the box touches: what lies beside it must not eat into the mask's border.
    at = np.minimum(np.maximum(at, max(math.floor(low), 0)), min(math.ceil(high), length) - 1)
    first = np.minimum(np.maximum(np.floor(at).astype(np.intp), 0), max(length - 2, 0))
    return first, np.minimum(first + 1, length - 1), (at - first).astype(np.float32)


def pack(masks: np.ndarray) -> np.ndarray:
    """0/1 [..., M, M] -> bit-packed rows uint8 [..., M, M / 8], most significant bit first."""
    return np.packbits(masks, axis=-1)
