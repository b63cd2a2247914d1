"""The annotation json that evaluation reads: a scanned one with its faults left out and its gaps filled."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from etils import epath

from c2am_jax.data.box_masks import usable_rle
from c2am_jax.data.entries import measured_area, stated_area
from c2am_jax.data.json_stream import Handler, open_json, read_lists
from c2am_jax.data.lvis_scan import LISTS
from c2am_jax.data.scanned import Scan


def write_evaluation_json(found: Scan, target: epath.Path, *, masks: bool = False, ids: bool = True) -> None:
    """Write what LVIS AP and COCO AP read: a copy of the file, or one with its faults left out and its gaps filled.

    Categories get `frequency`, `image_count` and `instance_count`; images `neg_category_ids` (COCO layout: all that are
    absent) and `not_exhaustive_category_ids`; annotations an `area`; crowds get "ignore": 1 beside their `iscrowd`.

    Args:
      found: the scanned file.
      target: file to write.
      masks: let only masks in that public C code can be given: run lengths that were checked, empty ones for masks that
        are not usable.
      ids: give annotation id 0, whose match the public evaluators ignore, another number.
    """
    with open_json(found.path) as source, target.open("wb") as file:
        if found.complete and not masks:
            return shutil.copyfileobj(source, file, 1 << 20)
        _Completion(found, file, masks, ids).write(source)


@contextlib.contextmanager
def public_copy(found: Scan, *, masks: bool) -> Iterator[Path]:
    """A file that public evaluators can be given, for the time of the context: the scanned one or a copy.

    Args:
      found: the scanned file.
      masks: whether they will hand its masks to C code, which checks nothing.
    """
    if found.complete and not masks:
        yield Path(found.path)
        return
    with tempfile.TemporaryDirectory(prefix="c2am_annotations_") as folder:
        place = Path(folder) / Path(found.path).name
        write_evaluation_json(found, epath.Path(place), masks=masks, ids=False)
        yield place


class _Completion:
    """Streams a scanned file into one that has all that the LVIS layout needs."""

    def __init__(self, found: Scan, file: IO[bytes], masks: bool, ids: bool):
        self._found, self._file, self._masks = found, file, masks
        self._new_id = {0: found.free_id} if ids else {}
        self._open, self._written = "", set()  # the list that is being written, and all so far
        self._ids = found.categories.ids.tolist()
        self._rows = {row["id"]: row for row in found.categories.as_dicts()}
        self._number = {image.id: i for i, image in enumerate(found.images)}

    def write(self, source: BinaryIO) -> None:
        changes = {"images": self._image, "annotations": self._annotation, "categories": self._category}
        self._file.write(b"{")
        read_lists(source, self._found.name, {key: self._writer(key, changes[key]) for key in LISTS})
        for key in LISTS:
            if key not in self._written:  # nothing of it is usable
                self._begin(key)
        self._file.write(b"]}")

    def _begin(self, key: str) -> None:
        self._file.write(f'{"], " if self._open else ""}"{key}": ['.encode())
        self._open = key
        self._written.add(key)

    def _writer(self, key: str, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Handler:
        def write(entry: Any, offset: int, length: int) -> None:
            if offset in self._found.unusable:
                return
            if key == self._open:
                self._file.write(b", ")
            else:
                self._begin(key)
            self._file.write(json.dumps(change(entry)).encode())

        return write

    def _category(self, category: Mapping[str, Any]) -> dict[str, Any]:
        return {**category, **self._rows[category["id"]]}

    def _annotation(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        changed = dict(annotation)
        image = self._found.images[self._number[annotation["image_id"]]]
        hw = image.height, image.width
        if annotation.get("iscrowd"):
            changed["ignore"] = 1
        if stated_area(annotation) is None:
            changed["area"] = measured_area(annotation, hw)
        if self._masks:
            changed["segmentation"] = _text_counts(usable_rle(annotation.get("segmentation"), hw))
        changed["id"] = self._new_id.get(annotation["id"], annotation["id"])
        return changed

    def _image(self, image: Mapping[str, Any]) -> dict[str, Any]:
        number = self._number[image["id"]]
        crowds = self._found.crowds.get(image["id"], set())
        present = set(self._found.label[self._found.start[number] : self._found.start[number + 1]].tolist()) | crowds
        negative = image.get("neg_category_ids")
        if negative is None:
            verified = self._found.layout == "coco"
            negative = [i for k, i in enumerate(self._ids) if k not in present] if verified else []
        partial = set(image.get("not_exhaustive_category_ids", ())) | {self._ids[k] for k in crowds}
        return {**image, "neg_category_ids": negative, "not_exhaustive_category_ids": sorted(partial)}


def _text_counts(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {**rle, "counts": counts.decode() if isinstance(counts, bytes) else counts}
