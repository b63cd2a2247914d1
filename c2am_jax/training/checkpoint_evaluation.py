"""Evaluate a checkpoint of a workdir, its scores calibrated or not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from c2am_jax.data import fractal
from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import UserError
from c2am_jax.evaluation.evaluate import Evaluated, evaluate
from c2am_jax.evaluation.results_folder import differences, differences_line, results_folder
from c2am_jax.experiment import Experiment
from c2am_jax.losses.calibration import calibrated
from c2am_jax.losses.classification import Classification
from c2am_jax.mesh import data_mesh
from c2am_jax.training import logit_statistics
from c2am_jax.training.categories import categories_of_run, places
from c2am_jax.training.restore import experiment_of, restore
from c2am_jax.training.state import build_detector, class_statistics
from c2am_jax.wording import noun


def evaluate_checkpoint(
    experiment: Experiment,
    workdir: str | Path,
    step: int | str | None = None,
    inspect: Callable[[Evaluated], None] | None = None,
    show: Callable[[str], None] | None = None,
    classes: str | Path | None = None,
) -> dict[str, float]:
    """Metrics of a checkpoint on the validation split, in the folder of `results_folder`.

    Args:
      experiment: may score otherwise than the run's own, and on another validation set; `show` is told.
      workdir: of the run.
      step: of the checkpoint; None is the newest, "best" the one with the best evaluation.
      inspect: gets the evaluation, see `evaluate`.
      show: gets its tables and what to know about them, as texts.
      classes: json or workdir with the categories that the detector was trained on, if the workdir has none.

    Raises:
      UserError: no such run or step, a run of another config, a calibration that does not go with the loss, or a
        validation set without any class of the detector.
    """
    run = experiment_of(workdir)
    trained = experiment.changed({"data.name": run.data.name})  # with the training set of the run
    state = restore(workdir, step, experiment=trained)
    detector, at = state.detector, int(state.step)
    changed = differences(run, experiment)
    if changed and show is not None:
        show(differences_line(changed))
    table = _classes(trained, experiment, workdir, classes, show)
    if experiment.calibration.name != "none":
        other, _ = build_detector(experiment, calibrate=_calibration(trained, workdir, at))
        detector = dataclasses.replace(detector, structure=other.structure)
    folder = results_folder(workdir, at, run, experiment)
    return evaluate(experiment, detector, workdir, at, classes=table, folder=folder, inspect=inspect, show=show)


def _classes(
    trained: Experiment,
    experiment: Experiment,
    workdir: str | Path,
    given: str | Path | None,
    show: Callable[[str], None] | None,
) -> CategoryTable:
    """The detector's classes; those of the validation set where nothing tells them (an imported or older run)."""
    if given or any(place.is_file() for place in places(workdir, trained)):
        return categories_of_run(workdir, trained, given, flag="--classes")
    dataset = open_dataset(experiment.data, experiment.eval.split)
    count = len(dataset.categories)
    if count != experiment.model.num_classes:
        raise UserError(
            f"{dataset.annotations_path} has {count} {noun(count, 'category')}, the detector "
            f"{experiment.model.num_classes}: give --classes FILE, the json it was trained on"
        )
    if show is not None:
        show(
            f"{workdir} does not tell the names of its classes: taken to be those of {dataset.name} in the order of "
            "their ids; --classes FILE gives the json it was trained on"
        )
    return dataset.categories


def _calibration(experiment: Experiment, workdir: str | Path, step: int) -> Callable[[Classification], Classification]:
    """`losses.calibration.calibrated` with what it needs of the training set or of the checkpoint."""
    settings, given = experiment.calibration, {}
    if settings.name == "logn":
        given["logit_statistics"] = logit_statistics.read(logit_statistics.path_of(workdir, step))
    else:
        dataset = open_dataset(experiment.data, "train")
        given["statistics"] = class_statistics(dataset)
        if settings.name == "fracal":
            given["dimension"] = fractal.of_annotations(dataset.annotations_path, dataset.categories.ids)
    return lambda method: calibrated(method, settings, **given)


def gather_logits(experiment: Experiment, workdir: str | Path, step: int | str | None, images: int) -> Path:
    """Write the statistics that LogN needs of a checkpoint; returns their file. Raises UserError as `restore`."""
    state = restore(workdir, step, experiment=experiment)
    found = logit_statistics.gather(experiment, state.detector, data_mesh(), images=images)
    path = logit_statistics.path_of(workdir, int(state.step))
    logit_statistics.write(found, path)
    return path
