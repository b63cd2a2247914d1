"""Instance masks on the host: rasterise, crop to the frame of the box, pack."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MASK_SIZE = 112


class BadMask(ValueError):
    """A segmentation that cannot be rasterised; the text says why."""


def rasterise(segmentation: Any, hw: tuple[int, int]) -> np.ndarray:
    """Polygons or RLE of an annotation -> uint8 [h, w] of 0 and 1, by pycocotools.

    Raises:
      BadMask: no polygon with three points, odd or non-finite coordinates, RLE of another image size.
    """
    height, width = hw
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if len(polygon) % 2 or not np.isfinite(np.asarray(polygon, float)).all():
                raise BadMask("polygon with an odd number of coordinates or a non-finite one")
        polygons = [p for p in segmentation if len(p) >= 6]
        if not polygons:
            raise BadMask("no polygon with at least 3 points")
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    elif isinstance(segmentation, dict) and {"size", "counts"} <= set(segmentation):
        if list(segmentation["size"]) != [height, width]:
            raise BadMask(f"RLE of size {segmentation['size']} in an image of {[height, width]}")
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
    else:
        raise BadMask("segmentation is neither polygons nor RLE")
    return coco_mask.decode(rle)


def box_frame(raster: np.ndarray, box: np.ndarray, size: int = MASK_SIZE) -> np.ndarray:
    """The mask in the frame of its box: uint8 [size, size], bilinear at cell centres, at least 0.5.

    Args:
      raster: 0 and 1, [h, w].
      box: xyxy in pixels of the raster.
      size: cells per side.
    """

    def weights(low, high, length):
        at = low + (np.arange(size) + 0.5) * (high - low) / size - 0.5
        # Only pixels that the box touches: what lies beside it must not eat into the mask's border.
        at = np.clip(at, max(np.floor(low), 0), min(np.ceil(high), length) - 1)
        first = np.clip(np.floor(at).astype(int), 0, max(length - 2, 0))
        return first, np.minimum(first + 1, length - 1), (at - first).astype(np.float32)

    top, bottom, fy = weights(box[1], box[3], raster.shape[0])
    left, right, fx = weights(box[0], box[2], raster.shape[1])
    rows = raster[top] * (1 - fy)[:, None] + raster[bottom] * fy[:, None]
    values = rows[:, left] * (1 - fx) + rows[:, right] * fx
    return (values >= 0.5).astype(np.uint8)


def pack(masks: np.ndarray) -> np.ndarray:
    """0/1 [..., M, M] -> bit-packed rows uint8 [..., M, M / 8], most significant bit first."""
    return np.packbits(masks, axis=-1)
