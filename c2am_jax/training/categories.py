"""The categories of a run: ``categories.json`` of its workdir, which names what it detects without its data."""

import json
from pathlib import Path

from c2am_jax.data import prepared
from c2am_jax.data.class_names import FILE, read_classes
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.files import as_path, replace_text
from c2am_jax.wording import noun


def write_categories(workdir: str | Path, categories: CategoryTable) -> None:
    """Keep the categories of the training set in a workdir."""
    as_path(workdir).mkdir(parents=True, exist_ok=True)
    replace_text(as_path(workdir) / FILE, json.dumps(categories.as_dicts(), indent=1))


def places(workdir: str | Path, experiment: Experiment) -> tuple[Path, Path]:
    """Where the categories of a run are: in its workdir, or (an imported or older run) with its prepared data."""
    kept = as_path(prepared.folder_of(f"{experiment.data.name}_train", experiment.data.dir))
    return as_path(workdir) / FILE, kept / FILE


def categories_of_run(
    workdir: str | Path, experiment: Experiment, path: str | Path | None = None, *, flag: str = "--categories"
) -> CategoryTable:
    """Categories of a run: of the file `path`, else of its workdir, else of its prepared data.

    Args:
      workdir: of the run.
      experiment: of the run.
      path: given by the user; a workdir stands for its categories.
      flag: of the command that takes `path`, for texts.

    Raises:
      UserError: none of them is there, or their number is not the detector's.
    """
    here, kept = places(workdir, experiment)
    source = as_path(path) if path else next((place for place in (here, kept) if place.is_file()), None)
    if source is None:
        raise UserError(
            f"{here} is missing (an imported or older run), and so is {kept}: give {flag} FILE, the "
            "json with the categories that the detector was trained on"
        )
    categories = read_classes(source)
    if len(categories) != experiment.model.num_classes:
        raise UserError(
            f"{source} has {len(categories)} {noun(len(categories), 'category')}, the detector of {workdir} "
            f"{experiment.model.num_classes}: give {flag} FILE, the json it was trained on"
        )
    return categories
