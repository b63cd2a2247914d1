"""The results that are compared: their files, and whether two of them were scored on the same images and classes."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.class_names import listed
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import LVISAP, evaluate_file
from c2am_jax.evaluation.result_classes import classes_of_results
from c2am_jax.evaluation.truths import Truths, read_truths
from c2am_jax.wording import counted


@dataclasses.dataclass(frozen=True)
class Results:
    """The results files of one evaluation.

    Attributes:
      name: what it is called in the page.
      place: folder or file, as the user knows it.
      annotations: the json that it was scored against.
      files: by IoU type.
      classes: json or workdir that says what the category ids mean; None: ``classes.json`` beside the file, if any.
      settings: of the run, by dotted key.
      split, subset: which images of its data were scored, as `config.eval` says.
    """

    name: str
    place: str
    annotations: Path
    files: Mapping[str, Path]
    classes: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str = "val"
    subset: str = "all"

    @property
    def table(self) -> CategoryTable | None:
        """The categories that its ids mean; None where nothing tells: they are the annotations' own."""
        known = classes_of_results(next(iter(self.files.values())), self.classes)
        return known and known.table

    def scored(
        self, kinds: Collection[str], annotations: Path, images: Collection[int] | None, groups: CategoryTable | None
    ) -> dict[str, LVISAP]:
        """Scores with evidence by IoU type, against `annotations`; `groups` say which categories are rare."""
        found = {}
        for kind in kinds:
            classes = classes_of_results(self.files[kind], self.classes)
            found[kind] = evaluate_file(
                annotations, self.files[kind], kind, evidence=True, classes=classes, groups=groups, images=images
            )
        return found


def check_same(one: Results, other: Results) -> None:
    """Refuse to compare what was scored on other images, objects or classes.

    Raises:
      UserError: the two differ, or the annotations of one are not there any more.
    """
    tables = one.table, other.table
    if tables[0] and tables[1] and {*tables[0].names} != {*tables[1].names}:
        only = [name for name in tables[0].names if name not in {*tables[1].names}]
        theirs = [name for name in tables[1].names if name not in {*tables[0].names}]
        told = [f"only {r.place} has {listed(names, 3)}" for r, names in ((one, only), (other, theirs)) if names]
        raise UserError(f"{one.place} and {other.place} were scored on other classes: {'; '.join(told)}")
    if one.subset != other.subset:
        told = [f"{r.place} on {'all images' if r.subset == 'all' else f'the subset {r.subset}'}" for r in (one, other)]
        raise UserError(f"{' and '.join(told)}: only scores on the same images can be compared; see --subset")
    if one.annotations.resolve() == other.annotations.resolve():
        return
    for results in (one, other):
        if not results.annotations.is_file():
            raise UserError(
                f"{results.place} was scored on {results.annotations}, which is not there: whether both runs saw the "
                "same images cannot be told"
            )
    if one.annotations.read_bytes() == other.annotations.read_bytes():
        return
    fault = _difference(read_truths(one.annotations), read_truths(other.annotations))
    if fault:
        raise UserError(
            f"{one.place} was scored on {one.annotations}, {other.place} on {other.annotations}: {fault}; only scores "
            "on the same images and objects can be compared"
        )


def _difference(ours: Truths, theirs: Truths) -> str:
    """What is not the same in two annotation files, "" if they score the same."""
    if not np.array_equal(ours.image_ids, theirs.image_ids):
        common = len(np.intersect1d(ours.image_ids, theirs.image_ids))
        return f"{len(ours.image_ids):,} and {counted(len(theirs.image_ids), 'image')}, {common:,} in common"
    if ours.table.names != theirs.table.names:
        return "other classes"
    same = len(ours.objects.image) == len(theirs.objects.image) and all(
        np.array_equal(getattr(ours.objects, part), getattr(theirs.objects, part)) for part in ("image", "box", "area")
    )
    return "" if same and np.array_equal(ours.present, theirs.present) else "other objects in the same images"
