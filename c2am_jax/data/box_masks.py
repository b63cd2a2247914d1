"""Instance masks on the host: polygons and RLE to run lengths, the crop to the frame of the box, packing.

Every segmentation becomes column-wise run lengths first (pycocotools rasterises polygons), are checked there, and only
the pixels that the box touches are ever expanded: the cost follows the instance, not the image.
"""

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MASK_SIZE = 112


class BadMask(ValueError):
    """A segmentation that cannot be rasterised; the text says why."""


def run_lengths(segmentation: Any, hw: tuple[int, int]) -> np.ndarray:
    """Polygons or RLE of an annotation -> int64 [R] lengths of runs of 0, 1, 0, ..., column by column.

    Polygons are rasterised by pycocotools and united; those of fewer than three points are left out.

    Raises:
      BadMask: no polygon with three points; coordinates that are odd in number, not finite, or beyond the image by more
        than its longer side; RLE of another image size, undecodable, or whose runs do not sum to the image's pixels
        (pycocotools would show whatever lay in memory).
    """
    if isinstance(segmentation, list):
        polygons = [_checked_polygon(polygon, hw) for polygon in segmentation]
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]
        if not polygons:
            raise BadMask("no polygon with at least 3 points")
        rles: list[Any] = coco_mask.frPyObjects(polygons, *hw)  # pyright: ignore[reportCallIssue, reportArgumentType]
        rle: Any = rles[0] if len(rles) == 1 else coco_mask.merge(rles)
        return _decoded_counts(rle["counts"])
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise BadMask("segmentation is neither polygons nor RLE")
    size, counts = segmentation["size"], segmentation["counts"]
    if size != list(hw):
        raise BadMask(f"RLE of size {size} in an image of {list(hw)}")
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count <= math.prod(hw) for count in counts):
            raise BadMask("RLE with a run length that is no count of pixels")
        lengths = np.array(counts, np.int64)
    elif isinstance(counts, str | bytes):
        lengths = _decoded_counts(counts.encode("latin-1", "replace") if isinstance(counts, str) else counts)
    else:
        raise BadMask("RLE whose counts are neither a list nor a string")
    if (lengths < 0).any() or (lengths > math.prod(hw)).any() or lengths.sum() != math.prod(hw):
        raise BadMask(f"RLE whose runs do not sum to the {math.prod(hw)} pixels of the image")
    return lengths


def _checked_polygon(polygon: Any, hw: tuple[int, int]) -> list[float]:
    """Coordinates x, y, x, y, ... Far ones are refused: the rasteriser walks along every edge."""
    if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
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


def _decoded_counts(text: bytes) -> np.ndarray:
    """COCO's compressed counts: 5 bits per character, and from the fourth on the difference to the one two before."""
    code = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(code) or code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise BadMask("RLE whose counts are cut off or hold a wrong character")
    end = np.flatnonzero(code & 32 == 0)
    start = np.empty_like(end)
    start[0], start[1:] = 0, end[:-1] + 1
    digits = end - start + 1
    if digits.max() > 8:
        raise BadMask("RLE with a run length that is no count of pixels")
    place = np.arange(len(code)) - np.repeat(start, digits)
    lengths = np.add.reduceat((code & 31) << (5 * place), start)
    lengths -= np.where(code[end] & 16, 1 << (5 * digits), 0)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


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
    """`box_frame` of the raster of an annotation, of which only the pixels under the box are made.

    Args:
      segmentation: polygons or RLE.
      box: xyxy in pixels, inside the image.
      hw: of the image.

    Returns:
      uint8 [MASK_SIZE, MASK_SIZE].

    Raises:
      BadMask: as `run_lengths`, or the mask covers no pixel of the image.
    """
    lengths = run_lengths(segmentation, hw)
    if not lengths[1::2].any():
        raise BadMask("mask lies outside the image")
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    touched = _expanded(lengths, hw, left, right)[:, top:bottom].T
    return box_frame(np.ascontiguousarray(touched), box - np.array([left, top, left, top], np.float64))


def box_frame(raster: np.ndarray, box: np.ndarray, size: int = MASK_SIZE) -> np.ndarray:
    """The mask in the frame of its box: uint8 [size, size], bilinear at cell centres, at least 0.5.

    Args:
      raster: 0 and 1, [h, w].
      box: xyxy in pixels of the raster.
      size: cells per side.
    """

    low, high = np.array([box[1::-1], box[:1:-1]], np.float64)[..., None]  # y, x
    length = np.array(raster.shape)[:, None]
    at = low + (np.arange(size) + 0.5) * (high - low) / size - 0.5
    # Only pixels that the box touches: what lies beside it must not eat into the mask's border.
    at = np.minimum(np.maximum(at, np.maximum(np.floor(low), 0)), np.minimum(np.ceil(high), length) - 1)
    first = np.minimum(np.maximum(np.floor(at).astype(int), 0), np.maximum(length - 2, 0))
    (top, left), (bottom, right) = first, np.minimum(first + 1, length - 1)
    fy, fx = (at - first).astype(np.float32)
    rows = raster[top] * (1 - fy)[:, None] + raster[bottom] * fy[:, None]
    values = rows.take(left, 1) * (1 - fx) + rows.take(right, 1) * fx
    return (values >= 0.5).astype(np.uint8)


def pack(masks: np.ndarray) -> np.ndarray:
    """0/1 [..., M, M] -> bit-packed rows uint8 [..., M, M / 8], most significant bit first."""
    return np.packbits(masks, axis=-1)
