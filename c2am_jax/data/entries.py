"""What a usable entry of an annotation json is: one description for preparation, scoring and reports.

A function `..._fault` tells why an entry can't be used, and "" if it can. An annotation needs ids and a box; its mask
is judged by `box_masks`: without a usable one it does not train, and at scoring its box counts and no mask matches it.
"""

import math
from collections.abc import Mapping
from typing import Any

from c2am_jax.data.box_masks import BadMask, is_absent, run_lengths

LARGEST_ID = 2**63 - 1


def is_id(value: Any) -> bool:
    """Whether a value is an integer of 64 bits."""
    return type(value) is int and abs(value) <= LARGEST_ID


def id_fault(entry: Mapping[str, Any], key: str = "id") -> str:
    """Why the value under `key` is no id."""
    value = entry.get(key)
    if is_id(value):
        return ""
    if value is None:
        return f"no integer {key}"
    if isinstance(value, str):
        return f"{key} {value!r:.40} is text; ids must be integers"
    if type(value) is int:
        return f"{key} {str(value):.24} needs more than 64 bits; ids go up to 2**63 - 1"
    return f"{key} {value!r:.40} is no integer"


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        return False


def image_fault(image: Any) -> str:
    """Why an entry of `images` can't be used."""
    if not isinstance(image, dict):
        return "no object with id, file_name, height and width"
    fault = id_fault(image)
    if fault:
        return fault
    for key in ("height", "width"):
        if type(image.get(key)) is not int or not 0 < image[key] < 2**31:
            return f"{key} {image[key]!r:.40} is no positive integer" if key in image else f"no {key}"
    for key in ("file_name", "coco_url"):
        if not isinstance(image.get(key) or "", str):
            return f"{key} {image[key]!r:.40} is no text"
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if not isinstance(image.get(key, []), list) or not all(map(is_id, image.get(key, []))):
            return f"{key!r} is no list of ids"
    return ""


def annotation_fault(annotation: Any) -> str:
    """Why an entry of `annotations` can't be used."""
    if not isinstance(annotation, dict):
        return "no object with id, image_id, category_id and bbox"
    for key in ("id", "image_id", "category_id"):
        fault = id_fault(annotation, key)
        if fault:
            return fault
    return box_fault(annotation.get("bbox"))


def box_fault(box: Any) -> str:
    """Why a value is no box, [x, y, width, height] in pixels."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        return f"bbox {box!r:.60} is not [x, y, width, height]"
    if not all(map(is_finite, box)):
        return "bbox with a non-finite number"
    return ""


def has_mask(annotation: Mapping[str, Any]) -> bool:
    """Whether a segmentation is there at all."""
    return not is_absent(annotation.get("segmentation"))


def stated_area(annotation: Mapping[str, Any]) -> float | None:
    """The key `area`, in pixels; None if it is missing or not a finite number from 0 on."""
    area = annotation.get("area")
    return float(area) if is_finite(area) and area >= 0 else None


def measured_area(annotation: Mapping[str, Any], hw: tuple[int, int]) -> float:
    """Pixels of the mask in an image of this height and width; of the box if no usable mask is there."""
    try:
        lengths = run_lengths(annotation.get("segmentation"), hw)
    except BadMask:
        lengths = None
    pixels = 0 if lengths is None else int(lengths[1::2].sum())
    return float(pixels) if pixels else abs(float(annotation["bbox"][2]) * float(annotation["bbox"][3]))
