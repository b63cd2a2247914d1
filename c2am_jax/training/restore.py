"""Evaluate a checkpoint of a workdir, calibrated or not."""

from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from c2am_jax.config import calibration_settings, train_settings
from c2am_jax.data import fractal
from c2am_jax.data.datasets import open_dataset
from c2am_jax.errors import UserError
from c2am_jax.evaluation.evaluate import evaluate
from c2am_jax.losses.calibration import calibrated
from c2am_jax.losses.classification import Classification
from c2am_jax.models.functional import Functional
from c2am_jax.training import logit_statistics
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.optimizer import learning_rate, make_optimizer
from c2am_jax.training.state import TrainState, build_functional, class_statistics, init_state
from c2am_jax.training.step import data_mesh, replicated


def load_checkpoint(config: ConfigDict, workdir: str | Path, step: int | None = None) -> tuple[Functional, TrainState]:
    """The detector and the state of a checkpoint (default: the newest).

    Raises:
      UserError: no such run or step, or a run of another config.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir}: no run there; train one with python train.py --config ... --workdir {workdir}")
    check_config(workdir, config, write=False)
    functional, params, rest, loss_state = build_functional(config)
    schedule = train_settings(config)
    optimizer = make_optimizer(schedule, learning_rate(schedule, 1))
    like = jax.device_put(init_state(params, rest, loss_state, optimizer), replicated(data_mesh()))
    with Checkpoints(workdir, keep=schedule.keep) as checkpoints:
        return functional, checkpoints.load(like, step)


def evaluate_checkpoint(config: ConfigDict, workdir: str | Path, step: int | None = None) -> dict[str, float]:
    """Metrics of a checkpoint on the validation split, in ``eval/STEP/``, or ``eval/STEP-CALIBRATION/``.

    Raises:
      UserError: as `load_checkpoint`, or a calibration that does not go with the loss.
    """
    name = calibration_settings(config).name
    if name == "none":
        functional, state = load_checkpoint(config, workdir, step)
        return evaluate(config, functional, state.params, state.rest, workdir, int(state.step))
    _, state = load_checkpoint(config, workdir, step)
    functional = build_functional(config, calibrate=_calibration(config, workdir, int(state.step)))[0]
    return evaluate(config, functional, state.params, state.rest, workdir, int(state.step), suffix=f"-{name}")


def _calibration(config: ConfigDict, workdir: str | Path, step: int) -> Callable[[Classification], Classification]:
    """`losses.calibration.calibrated` with what it needs of the training set or of the checkpoint."""
    settings, given = calibration_settings(config), {}
    if settings.name == "logn":
        given["logit_statistics"] = logit_statistics.read(logit_statistics.path_of(workdir, step))
    else:
        dataset = open_dataset(config.to_dict()["data"], "train")
        given["statistics"] = class_statistics(dataset)
        if settings.name == "fracal":
            given["dimension"] = fractal.of_annotations(dataset.annotations_path, dataset.categories.ids)
    return lambda method: calibrated(method, settings, **given)


def gather_logits(config: ConfigDict, workdir: str | Path, step: int | None, images: int) -> Path:
    """Write the statistics that LogN needs of a checkpoint; returns their file. Raises as `load_checkpoint`."""
    functional, state = load_checkpoint(config, workdir, step)
    found = logit_statistics.gather(config, functional, state.params, state.rest, data_mesh(), images=images)
    path = logit_statistics.path_of(workdir, int(state.step))
    logit_statistics.write(found, path)
    return path
