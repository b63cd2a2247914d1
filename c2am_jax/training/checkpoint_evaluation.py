"""Evaluate a checkpoint of a workdir, its scores calibrated or not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from c2am_jax.data import fractal
from c2am_jax.data.datasets import open_dataset
from c2am_jax.evaluation.evaluate import Evaluated, evaluate
from c2am_jax.experiment import Experiment
from c2am_jax.losses.calibration import calibrated
from c2am_jax.losses.classification import Classification
from c2am_jax.mesh import data_mesh
from c2am_jax.training import logit_statistics
from c2am_jax.training.restore import restore
from c2am_jax.training.state import build_detector, class_statistics


def evaluate_checkpoint(
    experiment: Experiment,
    workdir: str | Path,
    step: int | None = None,
    inspect: Callable[[Evaluated], None] | None = None,
    show: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Metrics of a checkpoint on the validation split, in ``eval/STEP/``, or ``eval/STEP-CALIBRATION/``.

    `inspect` gets the evaluation and `show` its tables, see `evaluate`.

    Raises:
      UserError: no such run or step, a run of another config, or a calibration that does not go with the loss.
    """
    state, name = restore(workdir, step, experiment=experiment), experiment.calibration.name
    detector, at, suffix = state.detector, int(state.step), ""
    if name != "none":
        other, _ = build_detector(experiment, calibrate=_calibration(experiment, workdir, at))
        detector, suffix = dataclasses.replace(detector, structure=other.structure), f"-{name}"
    return evaluate(experiment, detector, workdir, at, suffix=suffix, inspect=inspect, show=show)


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


def gather_logits(experiment: Experiment, workdir: str | Path, step: int | None, images: int) -> Path:
    """Write the statistics that LogN needs of a checkpoint; returns their file. Raises UserError as `restore`."""
    state = restore(workdir, step, experiment=experiment)
    found = logit_statistics.gather(experiment, state.detector, data_mesh(), images=images)
    path = logit_statistics.path_of(workdir, int(state.step))
    logit_statistics.write(found, path)
    return path
