"""What scoring needs of an annotation json, except the places of its entries; from the pass of `lvis_scan.scan`."""

import array
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from c2am_jax.data.entries import measured_area, stated_area

VERIFIED = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclasses.dataclass(frozen=True)
class Truths:
    """The T usable annotations in file order, crowds too, for scoring.

    Attributes:
      image: int32 [T], place in `Scan.images`.
      label: int32 [T], class.
      id: int64 [T].
      box: float64 [T, 4], x, y, width, height in pixels.
      area: float64 [T], pixels of the mask as the file tells, or measured where it does not.
      ignore: bool [T], crowds and what the file says.
      offset, length: int64 [T], bytes of the annotation in the file.
      negative: sorted int64 codes ``image * K + class`` of what is verified to be absent; None: everything is that has
        no annotation (COCO layout).
      not_exhaustive: sorted codes of what is annotated in part only.
    """

    image: np.ndarray
    label: np.ndarray
    id: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignore: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    negative: np.ndarray | None
    not_exhaustive: np.ndarray

    def of(self, chosen: np.ndarray) -> "Truths":
        """Some of the annotations: bool [T]."""
        names = ("image", "label", "id", "box", "area", "ignore", "offset", "length")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in names})


@dataclasses.dataclass(frozen=True)
class Known:
    """What the scan knows of n annotations: id, place of the image, class, bytes in the file, whether a crowd; [n]."""

    id: np.ndarray
    image: np.ndarray
    label: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crowd: np.ndarray

    def of(self, chosen: np.ndarray) -> "Known":
        """Those at these places."""
        return Known(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


class TruthColumns:
    """Takes the usable entries in the order of the scan; 50 bytes of each annotation."""

    def __init__(self):
        """Nothing yet."""
        self._boxes, self._areas, self._ignore = array.array("d"), array.array("d"), array.array("b")
        self._verified: list[dict[str, list[int]]] = []

    def image(self, image: Mapping[str, Any]) -> None:
        """The next usable entry of `images`."""
        self._verified.append({key: image[key] for key in VERIFIED if key in image})

    def annotation(self, annotation: Mapping[str, Any]) -> None:
        """The next usable entry of `annotations`."""
        area = stated_area(annotation)
        self._boxes.extend(annotation["bbox"])
        self._areas.append(math.nan if area is None else area)
        self._ignore.append(bool(annotation.get("ignore")) or bool(annotation.get("iscrowd")))

    def truths(
        self,
        known: Known,
        kept: np.ndarray,
        image_hw: Sequence[tuple[int, int]],
        class_ids: Sequence[int],
        *,
        verified: bool,
        file: BinaryIO,
    ) -> Truths:
        """The truths that stay.

        Args:
          known: of those that stay.
          kept: their places among all annotations that were taken.
          image_hw: of the images, in the order they were taken.
          class_ids: category ids, place k is class k.
          verified: whether the file tells what its images are verified for; else they are for everything.
          file: the open json, for areas that have to be measured.
        """
        area, box = np.array(self._areas)[kept], np.array(self._boxes).reshape(-1, 4)[kept]
        for row in np.flatnonzero(np.isnan(area)):
            file.seek(known.offset[row])
            area[row] = measured_area(json.loads(file.read(known.length[row])), image_hw[known.image[row]])
        negative, not_exhaustive = (self._codes(key, class_ids) for key in VERIFIED)
        codes = known.image.astype(np.int64) * len(class_ids) + known.label
        return Truths(
            image=known.image.astype(np.int32),
            label=known.label.astype(np.int32),
            id=known.id,
            box=box,
            area=area,
            ignore=np.array(self._ignore, bool)[kept],
            offset=known.offset,
            length=known.length,
            negative=negative if verified else None,
            not_exhaustive=np.union1d(not_exhaustive, codes[known.crowd]),
        )

    def _codes(self, key: str, class_ids: Sequence[int]) -> np.ndarray:
        class_of = {category: k for k, category in enumerate(class_ids)}
        codes = [
            n * len(class_ids) + class_of[category]
            for n, told in enumerate(self._verified)
            for category in told.get(key, ())
            if category in class_of
        ]
        return np.unique(np.array(codes, np.int64))
