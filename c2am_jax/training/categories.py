"""The categories of a run: ``categories.json`` of its workdir, which names what it detects without its data."""

import json
from pathlib import Path

from c2am_jax.data import prepared
from c2am_jax.data.lvis import AnnotationError, CategoryTable, category_table, read_json
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.files import replace_text

FILE = "categories.json"


def write_categories(workdir: str | Path, categories: CategoryTable) -> None:
    """Keep the categories of the training set in a workdir."""
    Path(workdir).mkdir(parents=True, exist_ok=True)
    replace_text(Path(workdir) / FILE, json.dumps(categories.as_dicts(), indent=1))


def read_categories(path: str | Path) -> CategoryTable:
    """Categories of a ``categories.json``, or of a json in the LVIS or COCO layout.

    Raises:
      AnnotationError: no such file, or no list of categories in it.
    """
    content = read_json(path)
    entries = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise AnnotationError(f"{path}: neither a list of categories nor a json that has one")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            raise AnnotationError(f"{path}: category {entry!r:.80} has no integer id")
    return category_table(entries)


def categories_of_run(workdir: str | Path, experiment: Experiment, path: str | Path | None = None) -> CategoryTable:
    """Categories of a run: of the file `path`, else of its workdir, else of its prepared data.

    Raises:
      UserError: none of them is there, or their number is not the detector's.
    """
    source = Path(path) if path else Path(workdir) / FILE
    if not path and not source.is_file():
        kept = Path(prepared.folder_of(f"{experiment.data.name}_train", experiment.data.dir)) / FILE
        if not kept.is_file():
            raise UserError(
                f"{source} is missing (an imported or older run), and so is {kept}: give --categories FILE, the "
                "json with the categories that the detector was trained on"
            )
        source = kept
    categories = read_categories(source)
    if len(categories) != experiment.model.num_classes:
        raise UserError(
            f"{source} has {len(categories)} categories, the detector of {workdir} {experiment.model.num_classes}: "
            "give --categories FILE, the json it was trained on"
        )
    return categories
