"""Classes of one table found in another: by name, whatever their ids are.

Names are compared letter by letter. Names that differ in case, spaces, hyphens or underscores only are two names, but
are shown side by side, because they mostly are a spelling of one. A category without a name is called by its id.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.entries import id_fault
from c2am_jax.data.lvis import AnnotationError, CategoryTable, category_table, read_json, repeated_names
from c2am_jax.data.lvis_scan import scan
from c2am_jax.errors import UserError, first_of
from c2am_jax.files import as_path

FILE = "categories.json"  # of a workdir: what its detector knows
SHOWN = 10  # names in one line


@dataclasses.dataclass(frozen=True)
class Match:
    """K classes of "ours" beside the V categories of "theirs".

    Attributes:
      ours, theirs: the two tables, and `ours_name` and `theirs_name` what a user calls them.
      row: int64 [K], the row of `theirs` with the name of class k; -1 without one.
    """

    ours: CategoryTable
    theirs: CategoryTable
    ours_name: str
    theirs_name: str
    row: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """int64 [K], the id that class k has in `theirs`; means nothing where `row` is -1."""
        return self.theirs.ids[self.row]

    @property
    def column(self) -> np.ndarray:
        """int64 [V], the class of ours that has the name of their row v; -1 without one."""
        found = np.full(len(self.theirs), -1, np.int64)
        known = np.flatnonzero(self.row >= 0)
        found[self.row[known]] = known
        return found

    @property
    def new_id(self) -> dict[int, int | None]:
        """Id in `ours` -> id in `theirs`; None for a class that they do not have."""
        pairs = zip(self.ours.ids.tolist(), self.row.tolist(), strict=True)
        return {own: None if row < 0 else int(self.theirs.ids[row]) for own, row in pairs}

    @property
    def same_ids(self) -> bool:
        """Whether every category of theirs has the id that it has in ours."""
        return all(new in (None, old) for old, new in self.new_id.items())

    @property
    def unknown(self) -> list[str]:
        """Names of theirs that ours lack."""
        return [self.theirs.names[v] for v in np.flatnonzero(self.column < 0)]

    @property
    def missing(self) -> list[str]:
        """Names of ours that theirs lack."""
        return [self.ours.names[k] for k in np.flatnonzero(self.row < 0)]

    def lines(self) -> list[str]:
        """What a user should know, a line each; nothing where both have the same classes under the same ids."""
        found = []
        if self.unknown:
            count, verb = (f"{len(self.unknown)} classes", "are") if len(self.unknown) > 1 else ("1 class", "is")
            found.append(
                f"{count} of {self.theirs_name} {verb} unknown to {self.ours_name} and can only score 0: "
                f"{listed(self.unknown)}{_hint(self.unknown, self.missing)}"
            )
        if self.missing:
            found.append(
                f"{self.theirs_name} has {len(self.ours) - len(self.missing)} of the {len(self.ours)} classes of "
                f"{self.ours_name}: detections of the others do not count"
            )
        if not self.same_ids:
            found.append(f"{self.theirs_name} has other category ids than {self.ours_name}: classes go by name")
        return found


def match(ours: CategoryTable, theirs: CategoryTable, ours_name: str, theirs_name: str) -> Match:
    """Find the K classes of `ours` among the V of `theirs`; the names of both tables are for texts.

    Raises:
      UserError: a name twice in a table (unless both tables are the same), or no name that both have.
    """
    if np.array_equal(ours.ids, theirs.ids) and ours.names == theirs.names:
        return Match(ours, theirs, ours_name, theirs_name, np.arange(len(ours)))
    for table, name in ((ours, ours_name), (theirs, theirs_name)):
        if table.repeated:
            raise UserError(f"{name}: {repeated_names(table)}")
    place = {name: v for v, name in enumerate(theirs.names)}
    row = np.array([place.get(name, -1) for name in ours.names], np.int64)
    found = Match(ours, theirs, ours_name, theirs_name, row)
    if (found.row < 0).all():
        raise UserError(
            f"{theirs_name} and {ours_name} have no class name in common: {listed(theirs.names, 5)} there, "
            f"{listed(ours.names, 5)} here{_hint(found.unknown, found.missing)}; {_why_none(found)}"
        )
    return found


def with_groups(table: CategoryTable, training: CategoryTable) -> CategoryTable:
    """The table with frequencies and counts of the training set, by name; those that it does not have keep theirs."""
    known = {row["name"]: row for row in training.as_dicts()}
    return category_table([{**known.get(row["name"], row), "id": row["id"]} for row in table.as_dicts()])


def read_categories(path: str | Path) -> CategoryTable:
    """Categories of a ``categories.json``, or of a json in the LVIS or COCO layout.

    Where the latter does not tell how frequent they are, its annotations are counted.

    Raises:
      AnnotationError: no such file, or no list of categories in it.
    """
    content = read_json(path)
    table = categories_in(content, path)
    told = isinstance(content, list) or all("frequency" in c or "image_count" in c for c in content["categories"])
    return table if told or not content.get("annotations") else scan(path).categories


def categories_in(content: Any, path: str | Path) -> CategoryTable:
    """`read_categories` of the content of a json file, whose name is for texts."""
    entries = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise AnnotationError(f"{path}: neither a list of categories nor a json that has one")
    for entry in entries:
        fault = id_fault(entry) if isinstance(entry, dict) else "no object with id and name"
        if fault:
            raise AnnotationError(f"{path}: category {entry!r:.80}: {fault}")
    return category_table(entries)


def read_classes(path: str | Path) -> CategoryTable:
    """`read_categories` of a file, or of a workdir's ``categories.json``."""
    return read_categories(as_path(path) / FILE if as_path(path).is_dir() else path)


def listed(names: list[str] | tuple[str, ...], most: int = SHOWN) -> str:
    """Names in quotes with commas, the first ones of many."""
    return first_of([repr(name) for name in names], most)


def _why_none(found: Match) -> str:
    """Why two tables have no name in common, as far as that is known."""
    tables = {found.ours_name: found.ours, found.theirs_name: found.theirs}
    nameless = [name for name, table in tables.items() if table.nameless]
    if len(nameless) == 1:
        return f"the categories of {nameless[0]} have no names, only ids: give each the name that the other has"
    return "names are compared letter by letter"


def _hint(unknown: list[str], missing: list[str]) -> str:
    """Names that differ in spelling only, as the end of a line."""
    known = {_plain(name): name for name in missing}
    pairs = [f"{name!r} may be {known[_plain(name)]!r}" for name in unknown if _plain(name) in known]
    return f" ({', '.join(pairs[:SHOWN])}: rename it)" if pairs else ""


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", str(name)).casefold()
