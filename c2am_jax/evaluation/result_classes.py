"""What the category ids in a results file mean: by name, so that the file also fits annotations with other ids.

Needs no JAX: scoring files does without it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2am_jax.data.class_names import match, read_classes
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import UserError
from c2am_jax.wording import counted

BESIDE = "classes.json"  # beside the results files of an evaluation


@dataclasses.dataclass(frozen=True)
class ResultClasses:
    """The categories whose ids a results file has, and the name of the file that told them."""

    table: CategoryTable
    name: str

    def renamed(
        self, results: Sequence[dict[str, Any]], predictions: str | Path, theirs: CategoryTable, annotations: str | Path
    ) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """The detections with the ids of `theirs`, those of other classes left out; and what to tell, in lines.

        Args:
          results: of the file `predictions`.
          predictions: for texts.
          theirs: categories of the file `annotations`.
          annotations: for texts.

        Raises:
          UserError: an id that this table does not have, or no class in common.
        """
        matched = match(self.table, theirs, self.name, str(annotations))
        new, kept = matched.new_id, []
        for place, entry in enumerate(results):
            category = entry.get("category_id")
            if category not in new:
                raise UserError(f"{predictions}: detection {place}: category id {category} is not in {self.name}")
            if new[category] is not None:
                kept.append({**entry, "category_id": new[category]})
        return kept, (*matched.lines(), *left_out_line(len(results) - len(kept)))


def classes_of_results(predictions: str | Path, given: str | Path | None) -> ResultClasses | None:
    """What the ids of a results file mean: by the file or workdir `given`, else by ``classes.json`` beside it, if any.

    Raises:
      AnnotationError: such a file, but no categories in it.
    """
    beside = Path(predictions).parent / BESIDE
    source = Path(given) if given else beside
    if not given and not beside.is_file():
        return None
    return ResultClasses(read_classes(source), str(source))


def left_out_line(count: int) -> tuple[str, ...]:
    """How many detections were left out, as a line; none for none."""
    if not count:
        return ()
    return (f"left out: {counted(count, 'detection')} of classes that are not there",)
