"""From detections in the network's input to entries of a LVIS results file, at the original size of the image.

Needs numpy and pycocotools only, so that worker processes start quickly. Masks are made inside their box.
"""

import json

import numpy as np
from pycocotools import mask as coco_mask


def _interpolation(low: float, high: float, start: int, stop: int, size: int) -> np.ndarray:
    """[stop - start, size]: weights of a mask's cells at pixel centres; what lies around them counts as 0."""
    at = (np.arange(start, stop, dtype=np.float32) + 0.5 - low) / np.float32(high - low) * size - 0.5
    return np.maximum(1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)), 0)


def paste(probabilities: np.ndarray, box: np.ndarray, hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Place one predicted mask into the image: `paste_probabilities`, at least 0.5; bool [h, w] and (top, left)."""
    region, corner = paste_probabilities(probabilities, box, hw)
    return region >= 0.5, corner


def paste_probabilities(
    probabilities: np.ndarray, box: np.ndarray, hw: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Probability of each pixel under one predicted mask.

    Reference rule: bilinear interpolation at pixel centres with zeros around the mask;
    outside floor(box) - 1 .. ceil(box) + 1 nothing can reach 0.5, so only that region is made.

    Args:
      probabilities: float [m, m] in the frame of the box.
      box: xyxy in pixels of the image.
      hw: height and width of the image.

    Returns:
      float32 [h, w] of the region and its (top, left); the region is empty for a box without area or outside.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    height, width = hw
    left, top = max(int(np.floor(x1)) - 1, 0), max(int(np.floor(y1)) - 1, 0)
    right, bottom = min(int(np.ceil(x2)) + 1, width), min(int(np.ceil(y2)) + 1, height)
    if x2 <= x1 or y2 <= y1 or right <= left or bottom <= top:
        return np.zeros((0, 0), np.float32), (0, 0)
    size = probabilities.shape[-1]
    wy = _interpolation(y1, y2, top, bottom, size)
    wx = _interpolation(x1, x2, left, right, size)
    return wy @ probabilities.astype(np.float32) @ wx.T, (top, left)


def encode(region: np.ndarray, corner: tuple[int, int], hw: tuple[int, int]) -> str:
    """Compressed RLE of a mask [h, w] at (top, left) in an image that is 0 everywhere else; only the region is read."""
    height, width = hw
    top, left = corner
    columns = np.zeros((region.shape[1], region.shape[0] + 2), bool)  # runs go down the columns and end at the border
    columns[:, 1:-1] = region.T
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
    change = (left + column) * height + top + row  # where runs of 1 start and end, in turns
    goes_on = np.flatnonzero(change[1:-1:2] == change[2::2])  # at the lower border, and from the top of the next column
    change = np.delete(change, np.concatenate([2 * goes_on + 1, 2 * goes_on + 2]))
    counts = np.diff(change, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)["counts"].decode()


def encode_image(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    category_ids: np.ndarray,
    masks: np.ndarray,
    input_hw: np.ndarray,
    original_hw: np.ndarray,
) -> tuple[list[str], list[str]]:
    """Box and mask entries of one image's detections, as json texts.

    Args:
      image_id: of the data set.
      boxes: [D, 4], in pixels of the network's input.
      scores: [D].
      category_ids: [D], of the data set.
      masks: probabilities [D, m, m] in the frames of the boxes.
      input_hw: size of the image in the network's input.
      original_hw: its size in the annotations.
    """
    ratio = (original_hw / input_hw)[::-1].astype(np.float32)
    height, width = (int(v) for v in original_hw)
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(boxes * np.concatenate([ratio, ratio]), 0, limit)
    found: tuple[list[str], list[str]] = ([], [])
    for box, score, category, mask in zip(boxes, scores, category_ids, masks, strict=True):
        common = {"image_id": image_id, "category_id": int(category), "score": float(score)}
        x1, y1, x2, y2 = (float(v) for v in box)
        counts = encode(*paste(mask, box, (height, width)), (height, width))
        segmentation = {"size": [height, width], "counts": counts}
        found[0].append(json.dumps({**common, "bbox": [x1, y1, x2 - x1, y2 - y1]}))
        found[1].append(json.dumps({**common, "segmentation": segmentation}))
    return found
