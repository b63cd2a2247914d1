"""Results of runs: of their newest evaluation, or of a folder that an evaluation wrote."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from c2am_jax.data.datasets import open_dataset, source_of
from c2am_jax.data.minival import chosen_images
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import BEST, NO_BEST, UserError
from c2am_jax.evaluation.lvis_ap import IOU_TYPES
from c2am_jax.evaluation.results_folder import FILE, PARTS, differences, results_folder
from c2am_jax.experiment import Experiment, flat, read_experiment
from c2am_jax.files import is_remote
from c2am_jax.report.checkpoint_report import record_images
from c2am_jax.report.comparison.page import checked, write_comparison
from c2am_jax.report.comparison.results import Results
from c2am_jax.report.gallery import folder_images


def compare_runs(
    path: Path,
    workdir: str | Path,
    against: str,
    *,
    given: Experiment | None = None,
    step: int | str | None = None,
    subset: str | None = None,
    folder: str | None = None,
    show: Callable[[str], None] = print,
) -> None:
    """Write the page about the results of a run (A) and of another run, or a folder of results (B).

    Args:
      path: of the page.
      workdir: of A.
      against: workdir of B, or folder of its results.
      given: what A was evaluated with, see `results_of_run`.
      step: of A's checkpoint.
      subset: of the images.
      folder: of the images; default the prepared data of A.
      show: gets texts.

    Raises:
      UserError: one of them has no results, or they were scored on other data.
    """
    if is_remote(workdir):
        raise UserError(_remote(workdir))
    one = results_of_run(workdir, given, step, subset)
    other = results_of(against, subset)
    checked(one, other)
    dataset = open_dataset(data_settings(one.settings), one.split)
    pictures = folder_images(dataset.annotations_path, folder) if folder else lambda _: record_images(dataset)
    images = chosen_images(dataset.annotations_path, one.subset)
    write_comparison(
        path,
        one,
        other,
        dataset.annotations_path,
        data=dataset.name,
        images=images,
        pictures=pictures,
        show=show,
    )


def results_of_run(
    workdir: str | Path, given: Experiment | None, step: int | str | None, subset: str | None
) -> Results:
    """The newest results of a workdir, or those of `step`.

    Args:
      workdir: of the run.
      given: the experiment that it was evaluated with, if that may be another than the run's own.
      step: of the checkpoint, a number or "best".
      subset: of the images, as `eval.subset`; None: as the run says.

    Raises:
      UserError: no run there, or none of its checkpoints has been evaluated so.
    """
    run = read_experiment(Path(workdir) / "config.json")
    wanted = given or run
    if subset:
        wanted = wanted.changed({"eval.subset": subset})
    if step == BEST:
        step = _best_step(workdir)
    changed = bool(differences(run, wanted))
    steps = {folder.name.partition("-")[0] for folder in (Path(workdir) / "eval").glob("[0-9]*")}
    for found in sorted((int(name) for name in steps), reverse=True):
        folder = results_folder(workdir, found, run, wanted) if changed else Path(workdir) / "eval" / f"{found}"
        if step in (None, found) and _files(folder):
            return results_of_folder(folder)
    flags = f" --step {step}" if step is not None else ""
    flags += f" --subset {subset}" if subset else ""
    settings = " and the same --config settings" if given and differences(run, given) else ""
    raise UserError(
        f"{workdir}: no results{flags} yet; make them with python eval.py --workdir {workdir}{flags}{settings}"
    )


def _best_step(workdir: str | Path) -> int:
    try:
        return int(json.loads((Path(workdir) / f"{BEST}.json").read_text())["step"])
    except (FileNotFoundError, ValueError, KeyError):
        raise UserError(f"{Path(workdir) / BEST}: {NO_BEST}") from None


def results_of_folder(folder: Path) -> Results:
    """What an evaluation wrote into a folder, mostly ``WORKDIR/eval/STEP``.

    Raises:
      UserError: nothing there says what was scored.
    """
    workdir = folder.resolve().parent.parent
    settings: dict[str, Any] = {}
    name, step, more = workdir.name, *folder.resolve().name.partition("-")[::2]
    if (workdir / "config.json").is_file():
        run = read_experiment(workdir / "config.json")
        name, settings = run.name, flat(run.as_json())
    if (folder / FILE).is_file():
        try:
            settings |= json.loads((folder / FILE).read_text())
        except ValueError as error:
            raise UserError(f"{folder / FILE}: not JSON ({error}); evaluate again with python eval.py") from None
    if not settings:
        raise UserError(f"{folder}: no {FILE} there, which says what was scored; evaluate again with python eval.py")
    told = f"{name}, step {int(step):,}" if step.isdigit() else folder.resolve().name
    parts = PARTS | {key: settings[key] for key in PARTS if key in settings}
    return Results(
        name=f"{told}, {more}" if more else told,
        place=str(folder),
        annotations=source_of(data_settings(settings), parts["eval.split"]),
        files=_files(folder),
        settings=settings,
        split=parts["eval.split"],
        subset=parts["eval.subset"],
    )


def results_of(place: str | Path, subset: str | None = None) -> Results:
    """Results of a workdir, as `results_of_run`, or of a folder, as `results_of_folder`.

    Raises:
      UserError: neither of them is there.
    """
    if is_remote(place):
        raise UserError(_remote(place))
    folder = Path(place)
    if (folder / "config.json").is_file():
        return results_of_run(folder, None, None, subset)
    if _files(folder):
        return results_of_folder(folder)
    lacks = "neither a run (no config.json) nor results of one (no detections_bbox.json)"
    raise UserError(f"{place}: {lacks if folder.is_dir() else 'no such folder'}; give a workdir, or WORKDIR/eval/STEP")


def _remote(place: str | Path) -> str:
    return f"{place}: results are compared on a local disk; copy them with gcloud storage cp -r"


def data_settings(settings: Mapping[str, Any]) -> DataSettings:
    """`config.data` of settings by dotted key; what this version does not know is left out."""
    known = {field.name for field in dataclasses.fields(DataSettings)}
    given = {key.removeprefix("data."): value for key, value in settings.items() if key.startswith("data.")}
    return DataSettings.from_dict({key: value for key, value in given.items() if key in known})


def _files(folder: Path) -> dict[str, Path]:
    """The results files of a finished evaluation, by IoU type; none of one that was cut off."""
    found = {kind: folder / f"detections_{kind}.json" for kind in IOU_TYPES}
    whole = (folder / "metrics.json").is_file() and all(file.is_file() for file in found.values())
    return found if whole else {}
