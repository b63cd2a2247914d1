"""What `lvis_scan.scan` finds in an annotation json, and what to tell of it."""

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from c2am_jax.data.entries import has_mask
from c2am_jax.data.json_stream import open_json
from c2am_jax.data.lvis import AnnotationError, CategoryTable, repeated_names
from c2am_jax.data.skipped import NEEDS_MASKS, Skipped
from c2am_jax.data.truth_columns import Truths
from c2am_jax.wording import counted


class ImageEntry(NamedTuple):
    """What records need of an entry of `images`."""

    id: int
    height: int
    width: int
    file_name: str
    coco_url: str


@dataclass(frozen=True)
class Scan:
    """A scanned file: N usable images in file order, A annotations that can train, image by image.

    Attributes:
      path: of the file, local.
      name: of the file in messages.
      sha256: of its bytes.
      layout: "lvis" or "coco".
      images: N entries.
      start: int64 [N + 1]; image i has the annotations start[i]..start[i + 1], in file order.
      offset, length: int64 [A], bytes of the annotation in the file.
      label: int32 [A], class.
      categories: with frequencies and counts, the file's own or else counted.
      listed: entries of each list of the file.
      additions: what the file lacks for LVIS AP, in words.
      zero_id: whether an annotation has the id 0.
      skipped: entries that can't be used at all, and crowds.
      unusable: offsets of those entries but crowds.
      crowds: classes of the crowd regions by image id.
      free_id: an annotation id that is not taken.
      unnamed: categories without a name.
      scored: objects that scoring counts: no crowds, none with "ignore" or of area 0.
      truths: what scoring needs in addition, if it was asked for.
    """

    path: str
    name: str
    sha256: str
    layout: str
    images: list[ImageEntry]
    start: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray
    categories: CategoryTable
    listed: dict[str, int]
    additions: list[str]
    zero_id: bool
    skipped: Skipped
    unusable: set[int]
    crowds: dict[int, set[int]]
    free_id: int
    unnamed: int
    scored: int
    truths: Truths | None = None

    @property
    def complete(self) -> bool:
        """Whether every public evaluator reads the file as it is."""
        return not self.additions and not self.unusable and not self.zero_id

    @property
    def completed(self) -> list[str]:
        """What a copy for evaluators has in addition, in words."""
        zero = ["another id for annotation 0, whose match the public evaluators ignore"] if self.zero_id else []
        return [*self.additions, *zero]

    @property
    def name_faults(self) -> list[str]:
        """What is wrong with the names of categories, a line each; nobody refuses the file for that alone."""
        lines = []
        if self.unnamed:
            have, their = ("has", "its id is") if self.unnamed == 1 else ("have", "their ids are")
            lines.append(f"{counted(self.unnamed, 'category')} of {self.name} {have} no name; {their} used")
        if self.categories.repeated:
            lines.append(f"{self.name}: {repeated_names(self.categories)}")
        return lines

    @property
    def nothing_to_score(self) -> str:
        """Why the file scores nothing, for a message; empty if it has an object that counts."""
        if self.scored:
            return ""
        why = self._why_no_object()
        if len(self.label):
            why = f"scoring ignores its {counted(len(self.label), 'annotation')}: 'ignore' is set, or the area is 0"
        return f"no object to score in {self.name}: {why}"

    def _why_no_object(self) -> str:
        left_out = self.skipped.told() if self.listed["annotations"] else ""
        return left_out or "the list 'annotations' is empty"

    def require_images(self) -> None:
        """Raises AnnotationError, which names the first reason, if not one image is usable."""
        if self.images:
            return
        if not self.listed["images"]:
            raise AnnotationError(f"{self.name}: the list 'images' is empty")
        first = self.skipped.entries["image entry unusable"][0]
        images = counted(self.listed["images"], "image")
        raise AnnotationError(f"{self.name}: none of its {images} is usable; the first: {first}")

    def require_objects(self) -> None:
        """Raises AnnotationError, with the reason, if there is nothing to train on: no object, or none with a mask."""
        told = f"{self.name}: no object to train on"
        if not len(self.label):
            raise AnnotationError(f"{told}: {self._why_no_object()}")
        with open_json(self.path) as file:
            for offset, length in zip(self.offset, self.length, strict=True):
                file.seek(offset)
                try:
                    if has_mask(json.loads(file.read(length))):
                        return
                except ValueError:
                    raise AnnotationError(f"{self.name}: the file was changed while it was read") from None
        raise AnnotationError(f"{told}: none of its annotations ({len(self.label):,}) has a mask; {NEEDS_MASKS}")
