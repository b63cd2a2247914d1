"""What an annotation json and a results json of the LVIS layout say, as arrays; every entry is checked on its way.

Memory holds some 60 bytes per detection.
"""

import math
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.class_names import Match
from c2am_jax.data.json_stream import BrokenJson, read_lists
from c2am_jax.data.lvis import AnnotationError, category_table
from c2am_jax.data.lvis_scan import open_json
from c2am_jax.errors import UserError
from c2am_jax.evaluation.ap_matching import ObjectTable
from c2am_jax.frequency import GROUPS

MAX_DETECTIONS = 300  # of an image, the best count
FIXED_PER_CATEGORY = 10_000  # of a category over all images, for AP-fixed


def stream(path: str | Path, read: Callable[[Any, str], Any]) -> None:
    """Hand an open file to `read`. Raises AnnotationError if it is missing or no json."""
    try:
        with open_json(str(path)) as file:
            read(file, str(path))
    except BrokenJson as error:
        raise AnnotationError(str(error)) from None


class Truths:
    """What the annotation json says, as arrays."""

    def __init__(self, path: str):
        self.path = path
        self._images: list[tuple[int, int, int, Any, Any]] = []
        self._categories: list[dict[str, Any]] = []
        self._columns: list[tuple] = []

    def read(self, file) -> None:
        """Read the lists of images, categories and annotations of an open file."""
        handlers = {"images": self._image, "categories": self._category, "annotations": self._annotation}
        counts, _ = read_lists(file, self.path, handlers)
        for key in handlers:
            self._require(key in counts, f"no list {key!r}: not the LVIS layout")
        self._require(bool(self._categories), "the list 'categories' is empty")

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise AnnotationError(f"{self.path}: {what}")

    def _image(self, image: Any, *_: int) -> None:
        self._require(isinstance(image, dict) and isinstance(image.get("id"), int), "an entry of 'images' has no id")
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            self._require(isinstance(image.get(key), list), f"image {image['id']}: no {key!r}, which LVIS AP needs")
        size = image.get("height"), image.get("width")
        self._require(all(isinstance(s, int) and s > 0 for s in size), f"image {image['id']}: no height and width")
        negative, incomplete = image["neg_category_ids"], image["not_exhaustive_category_ids"]
        self._images.append((image["id"], *size, negative, incomplete))

    def _category(self, category: Any, *_: int) -> None:
        known = isinstance(category, dict) and isinstance(category.get("id"), int)
        self._require(known, "an entry of 'categories' has no id")
        known = category.get("frequency") in tuple(GROUPS)
        self._require(known, f"category {category['id']}: no frequency {', '.join(GROUPS)}")
        self._categories.append(category)

    def _annotation(self, entry: Any, offset: int, length: int) -> None:
        self._require(isinstance(entry, dict) and isinstance(entry.get("id"), int), "an annotation has no id")
        for key in ("image_id", "category_id", "bbox", "area"):
            self._require(key in entry, f"annotation {entry['id']}: no {key!r}")
        box = entry["bbox"]
        numbers = isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))
        self._require(numbers, f"annotation {entry['id']}: bbox is not [x, y, width, height]")
        self._require(_is_finite(entry["area"]), f"annotation {entry['id']}: area {entry['area']!r} is not a number")
        for key in ("image_id", "category_id"):
            self._require(
                isinstance(entry[key], int), f"annotation {entry['id']}: {key} {entry[key]!r} is not an integer"
            )
        ignored = bool(entry.get("ignore", 0))
        row = (entry["image_id"], entry["category_id"], *box, entry["area"], ignored, entry["id"], offset, length)
        self._columns.append(row)

    def finish(self) -> None:
        """Indices instead of ids, codes of what is verified."""
        self._images.sort(key=lambda image: image[0])
        self.image_ids = np.array([image[0] for image in self._images], np.int64)
        self.image_hw = np.array([image[1:3] for image in self._images], np.int64).reshape(-1, 2)
        self.table = category_table(self._categories)
        self.index_of_image = {int(i): n for n, i in enumerate(self.image_ids)}
        self.class_of = self.table.class_of
        self._rows = np.array(self._columns, np.float64).reshape(-1, 11)
        self._columns = []
        self._image_column = self._indices(0, self.index_of_image, "images")
        self._class_column = self._indices(1, self.class_of, "categories")
        classes = len(self.table)
        codes = [
            [
                n * classes + self.class_of[c]
                for n, image in enumerate(self._images)
                for c in image[i]
                if c in self.class_of
            ]
            for i in (3, 4)
        ]
        negative, self.not_exhaustive = (np.unique(np.array(found, np.int64)) for found in codes)
        present = self._image_column * classes + self._class_column
        self.verified = np.unique(np.concatenate([negative, present]))
        self._images = []

    def _indices(self, column: int, index: Mapping[int, int], listed: str) -> np.ndarray:
        found = np.array([index.get(int(i), -1) for i in self._rows[:, column]], np.int64)
        for row in np.flatnonzero(found < 0)[:1]:
            name, value = int(self._rows[row, 8]), int(self._rows[row, column])
            self._require(False, f"annotation {name}: id {value} is not in {listed!r}")
        return found

    def objects(self) -> ObjectTable:
        """Sorted by category and image; file order within."""
        rows, classes = self._rows, len(self.table)
        order = np.lexsort((np.arange(len(rows)), self._image_column, self._class_column))

        def column(i):
            return rows[order, i]

        return ObjectTable(
            start=np.searchsorted(self._class_column[order], np.arange(classes + 1)),
            image=self._image_column[order],
            score=np.zeros(len(order)),
            box=rows[order, 2:6],
            area=column(6),
            ignore=column(7) != 0,
            known=column(8) != 0,
            offset=column(9).astype(np.int64),
            length=column(10).astype(np.int64),
        )


class DetectionRows:
    """What the results json says, as arrays.

    `left_out` counts detections of classes that the annotations do not have.
    """

    def __init__(self, path: str, iou_type: str, truths: Truths, classes: Match | None = None):
        """`classes` says what the category ids in the file mean, and which rows of `truths.table` these are."""
        self.path = path
        self._image_of, self._class_of = truths.index_of_image, truths.class_of
        self._meaning = "the annotations" if classes is None else classes.ours_name
        if classes is not None:
            self._class_of = dict(zip(classes.ours.ids.tolist(), classes.row.tolist(), strict=True))
        self._place, self.left_out = -1, 0
        self._sizes = truths.image_hw.tolist()
        self._field = "bbox" if iou_type == "bbox" else "segmentation"
        self._needed = ("image_id", "category_id", "score", self._field)
        self._has_boxes = iou_type == "bbox"
        self._image, self._label, self._length = array("i"), array("i"), array("i")
        self._score, self._box, self._offset = array("d"), array("d"), array("q")

    def add(self, entry: Any, offset: int, length: int) -> None:
        """The next detection. Raises UserError unless it is one for these images and categories."""
        self._place += 1
        self._require(isinstance(entry, dict), f"not an object with {', '.join(self._needed)}")
        for key in self._needed:
            self._require(key in entry, f"no {key!r}, which scoring by {self._field} needs")
        if not self._score:
            self._has_boxes = "bbox" in entry
        image, label = self._known(entry, "image_id", self._image_of), self._known(entry, "category_id", self._class_of)
        if label < 0:
            self.left_out += 1
            return
        score = entry["score"]
        self._require(_is_finite(score), f"score {score!r} is not a finite number")
        if self._has_boxes:
            box = entry.get("bbox")
            numbers = isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))
            self._require(numbers, f"bbox {box!r} is not [x, y, width, height] of finite numbers")
            self._box.extend(box)  # pyright: ignore[reportArgumentType]
        if self._field == "segmentation":
            rle = entry["segmentation"]
            compressed = isinstance(rle, dict) and isinstance(rle.get("counts"), str)
            self._require(compressed, "segmentation is not a compressed RLE (size and counts)")
            size = self._sizes[image]
            self._require(
                rle.get("size") == size, f"RLE of size {rle.get('size')}, but image {entry['image_id']} is {size}"
            )
        self._image.append(image)
        self._label.append(label)
        self._score.append(score)
        self._offset.append(offset)
        self._length.append(length)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self._error(what)

    def _error(self, what: str) -> UserError:
        return UserError(f"{self.path}: detection {self._place}: {what}")

    def _known(self, entry: dict[str, Any], key: str, index: Mapping[int, int]) -> int:
        value = entry[key]
        found = index.get(value) if isinstance(value, int) else None
        if found is None:
            where = self._meaning if key == "category_id" else "the annotations"
            raise self._error(f"{key.replace('_', ' ')} {value} is not in {where}")
        return found

    def best(self, *, fixed: bool) -> np.ndarray:
        """Which detections are among the 300 best of their image, or the 10,000 of their category: bool [N]."""
        image, label, score = (np.asarray(a) for a in (self._image, self._label, self._score))
        groups, most = (label, FIXED_PER_CATEGORY) if fixed else (image, MAX_DETECTIONS)
        order = np.lexsort((np.arange(len(score)), -score, groups))
        rank = np.arange(len(score)) - np.searchsorted(groups[order], groups[order])
        keep = np.zeros(len(score), bool)
        keep[order[rank < most]] = True
        return keep

    def verified(self, truths: Truths) -> np.ndarray:
        """Which detections are of a category that the annotations of their image say something about: bool [N]."""
        image, label = np.asarray(self._image).astype(np.int64), np.asarray(self._label)
        return np.isin(image * len(truths.table) + label, truths.verified)

    def objects(self, keep: np.ndarray, classes: int) -> ObjectTable:
        """Those that count, sorted by category, image and score; file order among equals."""
        image, label, score = (np.asarray(a) for a in (self._image, self._label, self._score))
        rows = np.flatnonzero(keep)
        rows = rows[np.lexsort((rows, -score[rows], image[rows], label[rows]))]
        box = np.asarray(self._box).reshape(-1, 4)[rows] if self._has_boxes else np.full((len(rows), 4), np.nan)
        return ObjectTable(
            start=np.searchsorted(label[rows], np.arange(classes + 1)),
            image=image[rows].astype(np.int64),
            score=score[rows],
            box=box,
            area=box[:, 2] * box[:, 3],
            ignore=np.zeros(len(rows), bool),
            known=np.ones(len(rows), bool),
            offset=np.asarray(self._offset)[rows],
            length=np.asarray(self._length)[rows].astype(np.int64),
        )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
