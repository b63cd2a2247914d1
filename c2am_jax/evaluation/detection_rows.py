"""What a results json of the LVIS layout says, as arrays; every entry, masks too, is checked on its way.

Memory holds some 60 bytes per detection.
"""

import functools
import re
import unicodedata
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from c2am_jax.data.box_masks import BadMask, check_compressed
from c2am_jax.data.class_names import Match
from c2am_jax.data.entries import id_fault, is_finite
from c2am_jax.data.json_stream import open_json, read_list
from c2am_jax.errors import UserError
from c2am_jax.evaluation.ap_matching import ObjectTable
from c2am_jax.evaluation.truths import Truths
from c2am_jax.wording import counted

MAX_DETECTIONS = 300  # of an image, the best count
FIXED_PER_CATEGORY = 10_000  # of a category over all images, for AP-fixed
MASKS_AT_ONCE = 4096  # checked together: a hundred times as fast as one by one


def _stems(*names: str) -> set[str]:
    """Names of files as two that mean one file have them: whatever folder, suffix, case, and COCO's year."""
    parts = (re.sub(r"^(.*[/\\\\])?(COCO_\w+2014_)?", "", name).rpartition(".") for name in names if name)
    return {unicodedata.normalize("NFC", stem or name).casefold() for stem, _, name in parts}


class DetectionRows:
    """What the results json says, as arrays.

    `left_out` counts detections of classes that the annotations do not have. `elsewhere` are file names that detections
    have beside their ids (`predict` writes them), by image, where the annotations call the file otherwise.
    """

    def __init__(self, path: str, iou_type: str, truths: Truths, classes: Match | None = None):
        """`classes` says what the category ids in the file mean, and which rows of `truths.table` these are."""
        self.path = path
        self._image_of = {image: n for n, image in enumerate(truths.image_ids.tolist())}
        self._class_of = truths.table.class_of
        self._outside = {self._image_of[image] for image in truths.outside.tolist()}
        self._meaning = "the annotations" if classes is None else classes.ours_name
        if classes is not None:
            self._class_of = dict(zip(classes.ours.ids.tolist(), classes.row.tolist(), strict=True))
        self._place, self.left_out = -1, 0
        self.elsewhere: dict[int, str] = {}
        self._truths = truths
        self._named: set[tuple[int, str]] = set()  # compared already
        self._sizes = truths.image_hw.tolist()
        self._field = "bbox" if iou_type == "bbox" else "segmentation"
        self._needed = ("image_id", "category_id", "score", self._field)
        self._has_boxes = iou_type == "bbox"
        self._image, self._label, self._length = array("i"), array("i"), array("i")
        self._score, self._box, self._offset = array("d"), array("d"), array("q")
        self._masks: list[tuple[int, str, int]] = []  # place, counts, pixels: to be checked

    def read(self) -> None:
        """All detections of the file.

        Raises:
          AnnotationError: it is missing or no json.
          UserError: a detection is not one for these images and categories, or its mask is none.
        """
        with open_json(self.path) as file:
            read_list(file, self.path, self.add)
        self._check_masks()

    def _check_masks(self) -> None:
        waiting, self._masks = self._masks, []
        if not waiting:
            return
        places, texts, pixels = zip(*waiting, strict=True)
        try:
            check_compressed(texts, pixels)
        except BadMask as error:
            raise UserError(f"{self.path}: detection {places[error.place]}: {error}") from None

    def add(self, entry: Any, offset: int, length: int) -> None:
        """The next detection. Raises UserError unless it is one for these images and categories."""
        self._place += 1
        self._require(isinstance(entry, dict), f"not an object with {', '.join(self._needed)}")
        for key in self._needed:
            self._require(key in entry, f"no {key!r}, which scoring by {self._field} needs")
        if not self._score:
            self._has_boxes = "bbox" in entry
        image, label = self._known(entry, "image_id", self._image_of), self._known(entry, "category_id", self._class_of)
        if image in self._outside:
            return
        if "file_name" in entry:
            self._compare(entry["image_id"], entry["file_name"])
        if label < 0:
            self.left_out += 1
            return
        score = entry["score"]
        self._require(is_finite(score), f"score {score!r} is not a finite number")
        if self._has_boxes:
            box = entry.get("bbox")
            numbers = isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))
            self._require(numbers, f"bbox {box!r} is not [x, y, width, height] of finite numbers")
            self._box.extend(box)  # pyright: ignore[reportArgumentType]
        if self._field == "segmentation":
            rle = entry["segmentation"]
            compressed = isinstance(rle, dict) and isinstance(rle.get("counts"), str)
            self._require(compressed, "segmentation is not a compressed RLE (size and counts)")
            size, given = self._sizes[image], rle.get("size")
            self._require(given == size, f"RLE of size {given}, but image {entry['image_id']} is {size}")
            self._masks.append((self._place, rle["counts"], size[0] * size[1]))
            if len(self._masks) == MASKS_AT_ONCE:
                self._check_masks()
        self._image.append(image)
        self._label.append(label)
        self._score.append(score)
        self._offset.append(offset)
        self._length.append(length)

    def _compare(self, image: int, name: Any) -> None:
        if not isinstance(name, str) or (image, name) in self._named:
            return
        self._named.add((image, name))
        here = _stems(*self._files[image])
        if here and not _stems(name) & here:
            self.elsewhere.setdefault(image, name)

    @functools.cached_property
    def _files(self) -> dict[int, tuple[str, str]]:
        """What the annotations call the file of each image."""
        return {entry.id: (entry.file_name, entry.coco_url) for entry in self._truths.found.images}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the pictures that were predicted, a line each."""
        if not self.elsewhere:
            return ()
        image, there = next(iter(self.elsewhere.items()))
        here = next(filter(None, self._files[image]))
        images = len({image for image, _ in self._named})
        several = counted(len(self.elsewhere), "image")
        return (
            f"warning: {self.path} has other file names than {self._truths.found.name} for {several} of {images:,}, so "
            f"its ids may mean other pictures: image {image} is {there} there, {here} here",
        )

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self._error(what)

    def _error(self, what: str) -> UserError:
        return UserError(f"{self.path}: detection {self._place}: {what}")

    def _known(self, entry: dict[str, Any], key: str, index: Mapping[int, int]) -> int:
        fault = id_fault(entry, key)
        self._require(not fault, fault)
        value = entry[key]
        found = index.get(value)
        if found is None:
            where = self._meaning if key == "category_id" else "the annotations"
            raise self._error(f"{key.replace('_', ' ')} {value} is not in {where}")
        return found

    def best(self, *, fixed: bool) -> np.ndarray:
        """Which detections are among the 300 best of their image, or the 10,000 of their category: bool [N]."""
        return self._rank(self._label) < FIXED_PER_CATEGORY if fixed else self._rank(self._image) < MAX_DETECTIONS

    def _rank(self, groups: array) -> np.ndarray:
        """How many detections of the same group come before each, by score and then in the file's order: [N]."""
        own, score = np.asarray(groups), np.asarray(self._score)
        order = np.lexsort((np.arange(len(score)), -score, own))
        rank = np.empty(len(score), np.int64)
        rank[order] = np.arange(len(score)) - np.searchsorted(own[order], own[order])
        return rank

    def verified(self, truths: Truths) -> np.ndarray:
        """Which detections are of a category that the annotations of their image say something about: bool [N]."""
        image, label = np.asarray(self._image).astype(np.int64), np.asarray(self._label)
        return truths.verified(image * len(truths.table) + label)

    def objects(self, keep: np.ndarray, classes: int) -> ObjectTable:
        """Those that count, sorted by category, image and score; file order among equals.

        Boxes without area do not count (the rule of `lvis.LVIS.get_ann_ids`); of masks, `ap_matching` sees to that.
        """
        image, label, score = (np.asarray(a) for a in (self._image, self._label, self._score))
        rows = np.flatnonzero(keep)
        rows = rows[np.lexsort((rows, -score[rows], image[rows], label[rows]))]
        box = np.full((len(rows), 4), np.nan)
        if self._has_boxes:
            box = np.asarray(self._box).reshape(-1, 4)[rows]
            some = box[:, 2] * box[:, 3] > 0
            rows, box = rows[some], box[some]
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
            rank=self._rank(self._image)[rows],
        )
