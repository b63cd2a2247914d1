"""One pass over an annotation json of any size: where every entry is, which can be used, what its layout lacks.

`entries` says what is usable. Preparation, scoring and reports all read a json by `scan`.

LVIS layout: images tell `neg_category_ids` and `not_exhaustive_category_ids`, categories their `frequency`. COCO
layout: they don't; every image is then verified for every category, and crowds (`iscrowd`) mark a category as not
exhaustively annotated in their image. Memory holds some 50 bytes of an annotation and the names and sizes of images.
"""

import array
import itertools
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from c2am_jax.data.entries import LARGEST_ID, annotation_fault, id_fault, image_fault, stated_area
from c2am_jax.data.json_stream import open_json, read_lists
from c2am_jax.data.lvis import AnnotationError, CategoryTable, category_table
from c2am_jax.data.scanned import ImageEntry, Scan
from c2am_jax.data.skipped import LISTED, Skipped
from c2am_jax.data.truth_columns import VERIFIED, Known, TruthColumns
from c2am_jax.frequency import GROUPS, group_of
from c2am_jax.wording import counted

LISTS = ("images", "annotations", "categories")


# What an annotation is as a crowd.
_NONE, _CROWD, _CROWD_IGNORED = range(3)


def _crowd(annotation: Mapping[str, Any]) -> int:
    if not annotation.get("iscrowd"):
        return _NONE
    return _CROWD_IGNORED if annotation.get("ignore") else _CROWD


class _Gatherer:
    """Takes the entries as they come; lists may stand in any order in the file."""

    def __init__(self, name: str, scoring: bool):
        self.name = name
        self.skipped = Skipped()
        self.unusable: set[int] = set()
        self.images: dict[int, ImageEntry] = {}
        self.categories: dict[int, dict[str, Any]] = {}
        self.training: dict[str, dict[str, Any]] = {}  # category rows of the training file by name, if needed
        self.verified = dict.fromkeys(VERIFIED, 0)  # images that tell
        self.ids, self.image_ids, self.category_ids = array.array("q"), array.array("q"), array.array("q")
        self.offsets, self.lengths, self.crowd = array.array("q"), array.array("q"), array.array("b")
        self.no_area = array.array("q")  # offsets
        self.counts = array.array("b")  # whether the entry alone says nothing against scoring it
        self.columns = TruthColumns() if scoring else None

    def _skip(self, reason: str, offset: int, name: str) -> None:
        self.skipped.add(reason, name)
        self.unusable.add(offset)

    def image(self, image: Any, offset: int, length: int) -> None:
        fault = image_fault(image)
        if fault:
            name = image.get("id") if isinstance(image, dict) else None
            return self._skip("image entry unusable", offset, f"image {name!r} at byte {offset}: {fault}")
        for key in self.verified:
            self.verified[key] += key in image
        names = image.get("file_name") or "", image.get("coco_url") or ""
        entry = ImageEntry(image["id"], image["height"], image["width"], *names)
        known = self.images.setdefault(entry.id, entry)
        if known is not entry:
            if known != entry:
                raise AnnotationError(f"{self.name}: images: id {entry.id} stands for two different images")
            self._skip("image listed twice", offset, f"image {entry.id} at byte {offset}")
        elif self.columns:
            self.columns.image(image)

    def category(self, category: Any, offset: int, length: int) -> None:
        fault = id_fault(category) if isinstance(category, dict) else "no object with id and name"
        if fault:
            raise AnnotationError(f"{self.name}: categories: the entry at byte {offset}: {fault}")
        where = f"{self.name}: category {category['id']}"
        if not isinstance(category.get("name", ""), str):
            raise AnnotationError(f"{where}: its name {category['name']!r} is no text")
        if category.get("frequency") not in (None, *GROUPS):
            raise AnnotationError(f"{where}: frequency {category['frequency']!r} is not r, c or f")
        for key in ("image_count", "instance_count"):
            if type(category.get(key, 0)) is not int or not 0 <= category.get(key, 0) <= LARGEST_ID:
                raise AnnotationError(f"{where}: {key} {category[key]!r} is no count")
        known = self.categories.setdefault(category["id"], category)
        if known is not category:
            if known != category:
                raise AnnotationError(f"{self.name}: categories: id {category['id']} stands for two categories")
            self._skip("category listed twice", offset, f"category {category['id']} at byte {offset}")

    def annotation(self, annotation: Any, offset: int, length: int) -> None:
        fault = annotation_fault(annotation)
        if fault:
            name = annotation.get("id") if isinstance(annotation, dict) else None
            return self._skip("annotation unusable", offset, f"annotation {name!r} at byte {offset}: {fault}")
        self.ids.append(annotation["id"])
        self.image_ids.append(annotation["image_id"])
        self.category_ids.append(annotation["category_id"])
        self.offsets.append(offset)
        self.lengths.append(length)
        self.crowd.append(_crowd(annotation))
        area = stated_area(annotation)
        if area is None:
            self.no_area.append(offset)
        self.counts.append(area != 0 and not annotation.get("ignore"))
        if self.columns:
            self.columns.annotation(annotation)


def _positions(values: np.ndarray, known: list[int]) -> np.ndarray:
    """Where each value is in the list `known` of unique integers; -1 for those that are not."""
    known_array = np.array(known, np.int64)
    if not len(known_array):
        return np.full(len(values), -1)
    order = np.argsort(known_array)
    at = np.minimum(np.searchsorted(known_array, values, sorter=order), len(known_array) - 1)
    return np.where(known_array[order[at]] == values, order[at], -1)


def scan(
    path: str | os.PathLike, name: str | os.PathLike = "", training: str | os.PathLike = "", *, scoring: bool = False
) -> Scan:
    """Read a json of the LVIS or COCO layout once.

    Entries that can't be used are skipped and counted: broken ones, later ones of the same id, annotations of an
    unknown image or category, non-finite boxes. Crowds are no training instances.

    Args:
      path: of the file, local.
      name: of the file in messages; its path if empty.
      training: json whose frequencies and counts stand in for absent ones, read only then; the file's own if empty.
      scoring: gather `Scan.truths` too, another 50 bytes of each annotation.

    Raises:
      AnnotationError: missing file, no json, a list missing, a category that is not what it should be, two images or
        two categories under one id.
    """
    path = os.fspath(path)
    name = os.fspath(name) or path
    found = _Gatherer(name, scoring)
    handlers = {"images": found.image, "annotations": found.annotation, "categories": found.category}
    with open_json(path) as file:
        bar = {"desc": f"read {os.path.basename(name)}", "total": os.path.getsize(path), "delay": 2, "disable": None}
        with tqdm.wrapattr(file, "read", **bar) as shown:
            listed, sha256 = read_lists(shown, name, handlers)
    for key in LISTS:
        if key not in listed:
            raise AnnotationError(f"{name}: no list {key!r}: neither the LVIS nor the COCO layout")
    if not found.categories:
        raise AnnotationError(f"{name}: the list 'categories' is empty")
    if training and any(category.get("frequency") is None for category in found.categories.values()):
        found.training = {row["name"]: row for row in scan(training).categories.as_dicts()}
    return _arranged(found, path, {key: listed[key] for key in LISTS}, sha256)


def _arranged(found: _Gatherer, path: str, listed: dict[str, int], sha256: str) -> Scan:
    """Annotations sorted to their images; the rest of the faults, which show only when all is known."""
    ids, image_ids, category_ids, offset, length = (
        np.frombuffer(values, np.int64) if values else np.zeros(0, np.int64)
        for values in (found.ids, found.image_ids, found.category_ids, found.offsets, found.lengths)
    )
    crowd_kind = np.frombuffer(found.crowd, np.int8) if found.crowd else np.zeros(0, np.int8)
    crowd = crowd_kind > _NONE
    counts = np.array(found.counts, bool)
    image = _positions(image_ids, list(found.images))
    class_ids = sorted(found.categories)
    label = _positions(category_ids, class_ids)
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    usable = np.ones(len(ids), bool)
    for reason, wrong, name in (
        ("annotation of an unknown image", image < 0, lambda i: f"image id {image_ids[i]} is not in 'images'"),
        ("annotation of an unknown category", label < 0, lambda i: f"category id {category_ids[i]} is not known"),
        ("annotation id used twice", ~first, lambda i: f"again at byte {offset[i]}"),
    ):
        bad = np.flatnonzero(wrong & usable)
        usable[bad] = False
        found.unusable.update(offset[bad].tolist())
        names = [f"annotation {ids[i]}: {name(i)}" for i in bad[:LISTED]]
        found.skipped.add(reason, *names, count=len(bad))
    crowded = np.flatnonzero(crowd & usable)
    names = [f"annotation {ids[i]} of image {image_ids[i]}" for i in crowded[:LISTED]]
    found.skipped.add("crowd region, evaluation ignores it", *names, count=len(crowded))
    crowds = defaultdict(set)
    for i in crowded:
        crowds[int(image_ids[i])].add(int(label[i]))

    kept = np.flatnonzero(usable & ~crowd)
    kept = kept[np.argsort(image[kept], kind="stable")]
    start = np.searchsorted(image[kept], np.arange(len(found.images) + 1)).astype(np.int64)
    categories, additions = _completed_categories(found, class_ids, image[kept], label[kept])
    told = found.verified["neg_category_ids"] > 0
    for key, count in found.verified.items():
        if count < len(found.images):
            additions.append(f"{key} of {counted(len(found.images) - count, 'image')}")
    open_crowds = int((crowd_kind[crowded] == _CROWD).sum())
    if open_crowds:
        additions.append(f"not_exhaustive_category_ids and ignore of {counted(open_crowds, 'crowd region')}")
    no_area = int(np.isin(offset[usable], found.no_area).sum())
    if no_area:
        additions.append(f"area of {counted(no_area, 'annotation')}, where it is missing or no number")
    truths = None
    if found.columns:
        stay = np.flatnonzero(usable)
        known = Known(ids, image, label, offset, length, crowd).of(stay)
        images = [(entry.height, entry.width) for entry in found.images.values()]
        with open_json(path) as file:
            truths = found.columns.truths(known, stay, images, class_ids, verified=told, file=file)
    return Scan(
        path=path,
        name=found.name,
        sha256=sha256,
        layout="lvis" if told else "coco",
        images=list(found.images.values()),
        start=start,
        offset=offset[kept],
        length=length[kept],
        label=label[kept].astype(np.int32),
        categories=categories,
        listed=listed,
        additions=additions,
        zero_id=bool((ids[usable] == 0).any()),
        skipped=found.skipped,
        unusable=found.unusable,
        crowds=dict(crowds),
        free_id=_free(ids),
        scored=int((usable & ~crowd & counts).sum()),
        unnamed=sum("name" not in category for category in found.categories.values()),
        truths=truths,
    )


def _free(ids: np.ndarray) -> int:
    """The number after the largest id, or the first one from 1 on that is free."""
    largest = int(ids.max(initial=0))
    if largest < LARGEST_ID:
        return largest + 1
    known = set(ids.tolist())
    return next(number for number in itertools.count(1) if number not in known)


def _counted(image: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and instances of each class: two int64 [K] of instances with these image numbers and labels."""
    pairs = np.unique(image * classes + label)
    return np.bincount(pairs % classes, minlength=classes), np.bincount(label, minlength=classes)


def _completed_categories(
    found: _Gatherer, class_ids: list[int], image: np.ndarray, label: np.ndarray
) -> tuple[CategoryTable, list[str]]:
    """The table, with what the file does not tell counted in it; and which keys that was."""
    images, instances = _counted(image, label, len(class_ids))
    rows, lacking = [], defaultdict(int)
    for k, category in enumerate(found.categories[i] for i in class_ids):
        counts = {"image_count": int(images[k]), "instance_count": int(instances[k])}
        name = category.get("name", str(category["id"]))
        row = {"frequency": None, **counts, **found.training.get(name, {})}
        row |= {key: category[key] for key in row if category.get(key) is not None}
        row["frequency"] = row["frequency"] or group_of(row["image_count"])
        for key in ("frequency", "image_count", "instance_count"):
            lacking[key] += category.get(key) is None
        rows.append({**row, "id": category["id"], "name": name})
    return category_table(rows), [f"{key} of {counted(count, 'category')}" for key, count in lacking.items() if count]
