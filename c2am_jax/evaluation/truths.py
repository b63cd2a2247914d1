"""Ground truths of an annotation json as arrays: what `data.lvis_scan` finds usable, by the rules of LVIS AP."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np

from c2am_jax.data.class_names import with_groups
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.scanned import Scan
from c2am_jax.evaluation.ap_matching import ObjectTable
from c2am_jax.wording import counted, noun


@dataclasses.dataclass(frozen=True)
class Truths:
    """What an annotation json says, for scoring. Codes are ``image * K + class``; images go by their ids in order.

    Attributes:
      found: the scanned file.
      table: categories, row k is class k.
      image_ids: int64 [images].
      outside: ids of the images that do not count, nor any detection in them.
      image_hw: int64 [images, 2].
      objects: all that count: those of area 0 do not (the rule of `lvis.LVIS.get_ann_ids`).
      negative: sorted codes of what is verified to be absent; None: everything is without an annotation.
      present: sorted codes of the objects.
      dropped: sorted codes of objects of area 0.
      not_exhaustive: sorted codes of what is annotated in part only.
      notes: what a user should know of the file, a line each.
    """

    found: Scan
    table: CategoryTable
    image_ids: np.ndarray
    outside: np.ndarray
    image_hw: np.ndarray
    objects: ObjectTable
    negative: np.ndarray | None
    present: np.ndarray
    dropped: np.ndarray
    not_exhaustive: np.ndarray
    notes: tuple[str, ...]

    def verified(self, codes: np.ndarray) -> np.ndarray:
        """Whether the annotations say anything about the category in the image: bool, as `codes`."""
        present = np.isin(codes, self.present)
        if self.negative is None:
            return present | ~np.isin(codes, self.dropped)
        return present | np.isin(codes, self.negative)


def read_truths(path: str | Path, groups: CategoryTable | None = None, images: Collection[int] | None = None) -> Truths:
    """Read a json of the LVIS or COCO layout.

    Args:
      path: of the file.
      groups: categories of the training set, whose frequencies count, by name; the file's own for others.
      images: ids of those that count; None: all.

    Raises:
      AnnotationError: as `scan`, or not one usable image.
    """
    found = scan(path, scoring=True)
    found.require_images()
    truths, classes = found.truths, len(found.categories)
    assert truths is not None
    ids = np.array([image.id for image in found.images], np.int64)
    by_id = np.argsort(ids)
    place = np.empty(len(ids), np.int64)
    place[by_id] = np.arange(len(ids))

    def moved(codes: np.ndarray) -> np.ndarray:
        return np.sort(place[codes // classes] * classes + codes % classes)

    image, counts = place[truths.image], truths.area > 0
    if images is not None:  # the others stay in the table, without anything in them
        inside = np.isin(ids, np.array(sorted(images), np.int64))[truths.image]
        image, counts = image[inside], counts[inside]
        truths = truths.of(inside)
    codes = image * classes + truths.label
    dropped = np.unique(codes[~counts])
    present = np.unique(codes[counts])
    rows = np.flatnonzero(counts)
    rows = rows[np.lexsort((rows, image[rows], truths.label[rows]))]
    objects = ObjectTable(
        start=np.searchsorted(truths.label[rows], np.arange(classes + 1)),
        image=image[rows],
        score=np.zeros(len(rows)),
        box=truths.box[rows],
        area=truths.area[rows],
        ignore=truths.ignore[rows],
        known=truths.id[rows] != 0,
        offset=truths.offset[rows],
        length=truths.length[rows],
        rank=np.zeros(len(rows), np.int64),
    )
    return Truths(
        found=found,
        table=found.categories if groups is None else with_groups(found.categories, groups),
        image_ids=ids[by_id],
        outside=np.zeros(0, np.int64) if images is None else np.setdiff1d(ids, np.array(sorted(images), np.int64)),
        image_hw=np.array([(image.height, image.width) for image in found.images], np.int64).reshape(-1, 2)[by_id],
        objects=objects,
        negative=None if truths.negative is None else moved(truths.negative),
        present=present,
        dropped=dropped,
        not_exhaustive=moved(truths.not_exhaustive),
        notes=(*notes_of(found, groups=groups is None), *_area_line(found.name, int((~counts).sum()))),
    )


def notes_of(found: Scan, *, groups: bool, federated: bool = True) -> list[str]:
    """What a user should know of a scanned file, a line each.

    Args:
      found: the file.
      groups: whether it tells of groups that it lacks.
      federated: whether the protocol asks what its images are verified for.
    """
    lines = [f"warning: {found.nothing_to_score}"] if found.nothing_to_score else []
    lines += [f"{found.name}: left out, {line}" for line in found.skipped.lines()]
    if federated and found.layout == "coco":
        lines.append(f"{found.name}: COCO layout, so a category without an annotation in an image is absent there")
    if found.zero_id:
        lines.append(f"{found.name}: the protocol ignores a match with annotation id 0; a prepared copy has another id")
    verified = "not_exhaustive_category_ids of" if federated else "not_exhaustive_category_ids"
    told = ("neg_", verified, "frequency", "image_count", "instance_count")
    own = [what for what in found.additions if not what.startswith(told)]
    if own:
        lines.append(f"{found.name}: completed for scoring: {', '.join(own)}")
    lines += [
        f"{found.name}: {what} counted in this file; the training set's groups: --classes WORKDIR"
        for what in found.additions
        if groups and what.startswith("frequency")
    ]
    return lines


def _area_line(name: str, count: int) -> tuple[str, ...]:
    if not count:
        return ()
    ignored = f"{counted(count, 'annotation')} of area 0 {noun(count, 'does', 'do')} not count"
    return (f"{name}: {ignored} (the protocol's rule)",)
