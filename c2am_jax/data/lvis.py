"""The LVIS json layout: images, annotations, categories; v0.5, v1.0 and every json written alike."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from etils import epath

from c2am_jax.errors import UserError
from c2am_jax.frequency import group_of


class AnnotationError(UserError):
    """A json that is not in the LVIS layout; the text names the file, the entry and the fix."""


@dataclasses.dataclass(frozen=True)
class CategoryTable:
    """Categories in id order; row k is class k. `frequency` is "r", "c" or "f"; counts are those of the file."""

    ids: np.ndarray
    names: tuple[str, ...]
    frequency: tuple[str, ...]
    image_count: np.ndarray
    instance_count: np.ndarray

    def __len__(self) -> int:
        """How many classes there are, K."""
        return len(self.ids)

    @property
    def class_of(self) -> dict[int, int]:
        """Category id -> class 0..K-1."""
        return {int(category): k for k, category in enumerate(self.ids)}

    def as_dicts(self) -> list[dict[str, Any]]:
        """Category dicts of the LVIS layout, from which `category_table` makes the same table."""
        counts = self.image_count.tolist(), self.instance_count.tolist()
        keys = ("id", "name", "frequency", "image_count", "instance_count")
        rows = zip(self.ids.tolist(), self.names, self.frequency, *counts, strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def group(self, letter: str) -> np.ndarray:
        """Classes of a frequency group, "r", "c" or "f"."""
        return np.flatnonzero(np.asarray(self.frequency) == letter)


def category_table(categories: Sequence[Mapping[str, Any]]) -> CategoryTable:
    """Table of category dicts; a missing `frequency` follows from `image_count` by LVIS's bounds."""
    ordered = sorted(categories, key=lambda c: c["id"])
    images = np.array([c.get("image_count", 0) for c in ordered], np.int64)
    return CategoryTable(
        ids=np.array([c["id"] for c in ordered], np.int64),
        names=tuple(c.get("name", str(c["id"])) for c in ordered),
        frequency=tuple(c.get("frequency") or group_of(n) for c, n in zip(ordered, images, strict=True)),
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


class ImageNotFound(FileNotFoundError):
    """No file for an image; `reason` is a line of the report, the text names the image and the places."""

    def __init__(self, reason: str, text: str):
        """`reason` is the kind of fault."""
        super().__init__(text)
        self.reason = reason


def _relative_places(image: Mapping[str, Any]) -> list[str]:
    """Where an image may be inside its folder, the likeliest place first; nothing climbs out of the folder."""
    names = [image.get("file_name"), "/".join((image.get("coco_url") or "").split("/")[-2:])]
    places = []
    for name in filter(None, names):
        path = PurePosixPath(name)
        if ".." in path.parts:
            continue
        if not path.is_absolute():
            places.append(name)
        places.append(path.name)
    # LVIS v0.5 names the 2014 files; the same pictures are in COCO's 2017 archives under their number.
    for old in filter(None, [re.fullmatch(r"COCO_(\w+2014)_(\d+\.jpg)", place) for place in places]):
        places += [f"{old[1]}/{old[0]}", f"train2017/{old[2]}", f"val2017/{old[2]}", old[2]]
    return [place for place in dict.fromkeys(places) if place]


def image_file(image: Mapping[str, Any], folder: str | os.PathLike) -> epath.Path:
    """Where an image's file is: `file_name` or the last two parts of `coco_url`, with or without its own folder.

    Args:
      image: "id" and one of "file_name" and "coco_url".
      folder: of the images, local or remote (gs://).

    Raises:
      ImageNotFound: none of these exists, or all climb out of the folder by "..".
    """
    candidates = [epath.Path(folder) / place for place in _relative_places(image)]
    if not candidates:
        named = image.get("file_name") or image.get("coco_url")
        raise ImageNotFound("image path outside the folder", f"image {image['id']}: {named!r} leads out of {folder}")
    for candidate in candidates:
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # no possible name of a file: too long, or with a character that no file has
            continue
    places = " or ".join(map(os.fspath, candidates))
    raise ImageNotFound("image file missing", f"image {image['id']}: no file {places}")
