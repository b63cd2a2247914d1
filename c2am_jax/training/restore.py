"""A trained detector from its workdir."""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from c2am_jax.data.lvis import CategoryTable
from c2am_jax.errors import BEST, NO_BEST, UserError
from c2am_jax.experiment import Experiment, read_experiment
from c2am_jax.files import as_path
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.storage import check_reachable, remote_errors
from c2am_jax.training.categories import categories_of_run
from c2am_jax.training.checkpoint import Checkpoints, compare_config, place_of, saved_steps
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import TrainState, build_detector, init_state


def experiment_of(workdir: str | Path) -> Experiment:
    """What a run was started with, also by an older version. Raises UserError if there is none, or a damaged one."""
    check_reachable(workdir, run=True)
    file = as_path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir}: no run there; train one with python train.py --config ... --workdir {workdir}")
    return read_experiment(file)


def first_state(experiment: Experiment, mesh: Mesh, statistics: ClassStatistics | None = None) -> TrainState:
    """The state of a config's detector with random weights: what a checkpoint of it looks like.

    `statistics` of the training set are needed for losses that mean something, as in `build_detector`.
    """
    detector, loss_state = build_detector(experiment, statistics)
    optimizer = make_optimizer(experiment.train, Schedule(experiment.train, 1).rate)
    return jax.device_put(init_state(detector, loss_state, optimizer), replicated(mesh))


def restore(
    workdir: str | Path,
    step: int | str | None = None,
    *,
    experiment: Experiment | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """The checkpoint of `step` (default: the newest) of a workdir, on all devices or those of `mesh`.

    Args:
      workdir: of the run.
      step: of the checkpoint; None is the newest, "best" the one with the best evaluation.
      experiment: may say other things than the run's own, as long as the detector is the same.
      mesh: where the state goes.

    Raises:
      UserError: no such run or step, or a config of another detector.
    """
    folder, number = place_of(step)
    there = experiment_of(workdir)
    if experiment is not None:
        compare_config(as_path(workdir), experiment)
    if not saved_steps(as_path(workdir) / folder):
        none = "no checkpoint there; a run has one when it was trained until its first checkpoint"
        raise UserError(f"{as_path(workdir) / folder}: {NO_BEST if folder == BEST else none}")
    experiment = experiment or there
    like = first_state(experiment, mesh or data_mesh())
    with remote_errors(workdir), Checkpoints(as_path(workdir), keep=experiment.train.keep, name=folder) as checkpoints:
        return checkpoints.load(like, number)


@dataclasses.dataclass(frozen=True)
class TrainedDetector:
    """A detector of a workdir, with the experiment of its run, its categories (row k is class k) and its step."""

    experiment: Experiment
    detector: Detector
    categories: CategoryTable
    step: int


def load_detector(
    workdir: str | Path, step: int | str | None = None, *, categories: str | Path | None = None
) -> TrainedDetector:
    """What a workdir holds, by nothing but its own files.

    Args:
      workdir: of the run.
      step: of the checkpoint; None is the newest, "best" the one with the best evaluation.
      categories: json to read them from instead of the workdir's.

    Raises:
      UserError: no run or no such checkpoint there, damaged files, categories that do not fit.
    """
    experiment = experiment_of(workdir)
    table = categories_of_run(workdir, experiment, categories)
    state = restore(workdir, step)
    return TrainedDetector(experiment, state.detector, table, int(state.step))
