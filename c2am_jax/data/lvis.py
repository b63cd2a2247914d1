"""The LVIS json layout: images, annotations, categories; v0.5, v1.0 and every json written alike."""

import dataclasses
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from c2am_jax.errors import UserError, first_of
from c2am_jax.files import as_path
from c2am_jax.frequency import group_of


class AnnotationError(UserError):
    """A json that is not in the LVIS layout; the text names the file, the entry and the fix."""


MOST_FOLDERS = 3  # of an absolute path that are tried inside the folder of images


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

    @property
    def repeated(self) -> dict[str, list[int]]:
        """Names that more than one category has, and the ids of these."""
        ids: dict[str, list[int]] = {}
        for number, name in zip(self.ids.tolist(), self.names, strict=True):
            ids.setdefault(name, []).append(number)
        return {name: own for name, own in ids.items() if len(own) > 1}

    @property
    def nameless(self) -> bool:
        """Whether each category is called by its id."""
        return self.names == tuple(map(str, self.ids.tolist()))

    def as_dicts(self) -> list[dict[str, Any]]:
        """Category dicts of the LVIS layout, from which `category_table` makes the same table."""
        counts = self.image_count.tolist(), self.instance_count.tolist()
        keys = ("id", "name", "frequency", "image_count", "instance_count")
        rows = zip(self.ids.tolist(), self.names, self.frequency, *counts, strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def group(self, letter: str) -> np.ndarray:
        """Classes of a frequency group, "r", "c" or "f"."""
        return np.flatnonzero(np.asarray(self.frequency) == letter)


def repeated_names(table: CategoryTable) -> str:
    """The names that more than one category has, for a message with the file's name before it."""
    several = [f"{name!r} (ids {', '.join(map(str, ids))})" for name, ids in table.repeated.items()]
    return f"categories go by name, but more than one is called {first_of(several, 10)}; rename them"


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
        with as_path(path).open(encoding="utf-8") as file:
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


def _names(image: Mapping[str, Any]) -> list[str]:
    """What an entry calls its file: `file_name`, and the last two parts of `coco_url`; backslashes separate too."""
    names = [image.get("file_name") or "", "/".join((image.get("coco_url") or "").split("/")[-2:])]
    return [name.replace("\\", "/") for name in names if name]


def _relative_places(image: Mapping[str, Any]) -> list[str]:
    """Where an image may be inside its folder, the likeliest place first; nothing climbs out of the folder."""
    places = []
    for name in _names(image):
        path = PurePosixPath(name)
        parts = path.parts[1:] if path.is_absolute() else path.parts
        climbs = max((i + 1 for i, part in enumerate(parts) if part == ".."), default=0)
        parts = parts[climbs:]
        first = max(1, len(parts) - MOST_FOLDERS) if path.is_absolute() else 0
        places += ["/".join(parts[start:]) for start in range(first, len(parts))]
    # LVIS v0.5 names the 2014 files; the same pictures are in COCO's 2017 archives under their number.
    for old in filter(None, [re.fullmatch(r"COCO_(\w+2014)_(\d+\.jpg)", place) for place in places]):
        places += [f"{old[1]}/{old[0]}", f"train2017/{old[2]}", f"val2017/{old[2]}", old[2]]
    return [place for place in dict.fromkeys(places) if place]


def _spellings(place: str) -> list[str]:
    """Other names that people take for the same: composed and decomposed letters, .jpg and .JPG."""
    stem, dot, suffix = place.rpartition(".")
    cased = [f"{stem}{dot}{s}" for s in (suffix.lower(), suffix.upper())] if dot else []
    found = [unicodedata.normalize(form, name) for name in (place, *cased) for form in ("NFC", "NFD")]
    return [name for name in dict.fromkeys(found) if name != place]


class FoundImage(NamedTuple):
    """An image's file, and whether it lies in another folder than its `file_name` says."""

    path: epath.Path
    elsewhere: bool


def find_image(image: Mapping[str, Any], folder: str | os.PathLike) -> FoundImage:
    """Where an image's file is: `file_name` or the last two parts of `coco_url`, with or without its folders.

    Backslashes are separators; of a path with ".." what stands behind it counts. Names that differ in the case of the
    suffix or in how accents are written are looked for after those as given.

    Args:
      image: "id" and one of "file_name" and "coco_url".
      folder: of the images, local or remote (gs://).

    Raises:
      ImageNotFound: no name, or none of these exists.
    """
    names = _names(image)
    if not names:
        raise ImageNotFound(
            "image file missing", f"image {image['id']}: neither 'file_name' nor 'coco_url' says where its file is"
        )
    places = _relative_places(image)
    others = ((place, spelt) for place in places for spelt in _spellings(place))
    for place, spelt in itertools.chain(zip(places, places, strict=True), others):
        candidate = epath.Path(as_path(folder)) / spelt
        try:
            if candidate.is_file():
                return FoundImage(candidate, bool(image.get("file_name")) and _moved(names[0], place, candidate))
        except (OSError, ValueError):  # no possible name of a file: too long, or with a character that no file has
            continue
    text = " or ".join(os.fspath(epath.Path(folder) / place) for place in places) or f"{names[0]!r} in {folder}"
    raise ImageNotFound("image file missing", f"image {image['id']}: no file {text}")


def _moved(name: str, place: str, found: epath.Path) -> bool:
    """Whether a place is only the last part of a name with folders in it, and the file is in other folders."""
    inside = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
    if PurePosixPath(place).parts != tuple(inside[-1:]) or len(inside) < 2 or name.startswith("/"):
        return False
    return found.parts[-len(inside) : -1] != tuple(inside[:-1])


def image_file(image: Mapping[str, Any], folder: str | os.PathLike) -> epath.Path:
    """The file of `find_image`."""
    return find_image(image, folder).path
