"""The LVIS json layout: images, annotations, categories; v0.5, v1.0 and every json written alike."""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.errors import UserError

FREQUENCIES = ("r", "c", "f")  # at most 10 training images, at most 100, more


class AnnotationError(UserError):
    """A json that is not in the LVIS layout; the text names the file, the entry and the mend."""


@dataclasses.dataclass(frozen=True)
class CategoryTable:
    """Categories in id order; row k is class k. `frequency` is "r", "c" or "f"; counts are those of the file."""

    ids: np.ndarray
    names: tuple[str, ...]
    frequency: tuple[str, ...]
    image_count: np.ndarray
    instance_count: np.ndarray

    def __len__(self) -> int:
        """K."""
        return len(self.ids)

    @property
    def class_of(self) -> dict[int, int]:
        """Category id -> class 0..K-1."""
        return {int(category): k for k, category in enumerate(self.ids)}

    def group(self, letter: str) -> np.ndarray:
        """Classes of a frequency group, "r", "c" or "f"."""
        return np.flatnonzero(np.asarray(self.frequency) == letter)


@dataclasses.dataclass(frozen=True)
class Annotations:
    """A read and checked file: image dicts in file order, annotation dicts by image id, categories."""

    path: str
    images: Sequence[Mapping[str, Any]]
    by_image: Mapping[int, Sequence[Mapping[str, Any]]]
    categories: CategoryTable


def _require(condition: bool, path: str, what: str) -> None:
    if not condition:
        raise AnnotationError(f"{path}: {what}")


def _frequency(image_count: int) -> str:
    return "r" if image_count <= 10 else "c" if image_count <= 100 else "f"


def category_table(categories: Sequence[Mapping[str, Any]]) -> CategoryTable:
    """Table of category dicts; a missing `frequency` follows from `image_count` by LVIS's bounds."""
    ordered = sorted(categories, key=lambda c: c["id"])
    images = np.array([c.get("image_count", 0) for c in ordered], np.int64)
    return CategoryTable(
        ids=np.array([c["id"] for c in ordered], np.int64),
        names=tuple(c.get("name", str(c["id"])) for c in ordered),
        frequency=tuple(c.get("frequency") or _frequency(n) for c, n in zip(ordered, images, strict=True)),
        image_count=images,
        instance_count=np.array([c.get("instance_count", 0) for c in ordered], np.int64),
    )


def read_json(path: str | os.PathLike) -> Any:
    """Parse a json file; AnnotationError names it if it is missing or broken."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: not a json file ({error})") from None


def read_annotations(path: str | os.PathLike) -> Annotations:
    """Read a json of the LVIS layout and check what every later step relies on.

    Raises:
      AnnotationError: missing file or key, duplicate id, annotation of an unknown image or category.
    """
    path = str(path)
    content = read_json(path)
    _require(isinstance(content, dict), path, "the top level must be an object with images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        _require(isinstance(content.get(key), list), path, f"no list {key!r}: not the LVIS layout")
    _require(bool(content["categories"]), path, "the list 'categories' is empty")
    for kind in ("images", "categories", "annotations"):
        seen = set()
        for entry in content[kind]:
            _require(isinstance(entry, dict) and "id" in entry, path, f"an entry of {kind!r} has no id")
            _require(entry["id"] not in seen, path, f"{kind}: id {entry['id']} appears twice")
            seen.add(entry["id"])
    for image in content["images"]:
        for key in ("height", "width"):
            _require(isinstance(image.get(key), int), path, f"image {image['id']}: no integer {key!r}")
        named = "file_name" in image or "coco_url" in image
        _require(named, path, f"image {image['id']}: neither 'file_name' nor 'coco_url' says where its file is")
    categories = category_table(content["categories"])
    known_images = {image["id"] for image in content["images"]}
    known_categories = set(categories.ids.tolist())
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        name = f"annotation {annotation['id']}"
        for key in ("image_id", "category_id", "bbox", "segmentation"):
            _require(key in annotation, path, f"{name}: no {key!r}")
        image, category = annotation["image_id"], annotation["category_id"]
        _require(image in known_images, path, f"{name}: image id {image} is not in 'images'")
        _require(category in known_categories, path, f"{name}: category id {category} is not in 'categories'")
        box = annotation["bbox"]
        _require(isinstance(box, list) and len(box) == 4, path, f"{name}: bbox is not [x, y, width, height]")
        by_image[image].append(annotation)
    return Annotations(path, content["images"], by_image, categories)


def image_file(image: Mapping[str, Any], folder: str | os.PathLike) -> Path:
    """Where an image's file is: `file_name`, else the last two parts of `coco_url`, or its bare name in `folder`.

    Raises:
      FileNotFoundError: none of these exists; the text names the image and the places.
    """
    name = image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])
    folder = Path(folder)
    candidates = list(dict.fromkeys([folder / name, folder / Path(name).name]))
    for candidate in candidates:
        if folder.resolve() in candidate.resolve().parents and candidate.is_file():
            return candidate
    places = " or ".join(map(str, candidates))
    raise FileNotFoundError(f"image {image['id']}: no file {places}")
