"""A trained detector from its workdir."""

import dataclasses
import json
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2am_jax.config import train_settings
from c2am_jax.data.lvis import CategoryTable, category_table, read_json
from c2am_jax.errors import UserError
from c2am_jax.models.functional import Functional
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.loop import CATEGORIES
from c2am_jax.training.optimizer import learning_rate, make_optimizer
from c2am_jax.training.state import TrainState, build_functional, init_state
from c2am_jax.training.step import data_mesh, replicated


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds.

    Attributes:
      config: of the run.
      functional: its detector's structure.
      state: of a checkpoint, replicated over a mesh.
    """

    config: ConfigDict
    functional: Functional
    state: TrainState


def config_of(workdir: str | Path) -> ConfigDict:
    """The config that a run was started with. Raises UserError if there is none."""
    file = Path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir}: no run there; train one with python train.py --config ... --workdir {workdir}")
    try:
        return ConfigDict(json.loads(file.read_text()))
    except ValueError as error:
        raise UserError(f"{file}: not the config of a run: {error}") from None


def first_state(config: ConfigDict, mesh: Mesh) -> tuple[Functional, TrainState]:
    """The detector of a config and its state before the first step: what a checkpoint of it looks like."""
    functional, params, rest, loss_state = build_functional(config)
    schedule = train_settings(config)
    optimizer = make_optimizer(schedule, learning_rate(schedule, 1))
    return functional, jax.device_put(init_state(params, rest, loss_state, optimizer), replicated(mesh))


def restore(
    workdir: str | Path, step: int | None = None, *, config: ConfigDict | None = None, mesh: Mesh | None = None
) -> Run:
    """The checkpoint of `step` (default: the newest) of a workdir, on all devices or those of `mesh`.

    `config` may say other things than the run's own, as long as the detector is the same.

    Raises:
      UserError: no such run or step, or a config of another detector.
    """
    there = config_of(workdir)
    if config is None:
        config = there
    else:
        check_config(Path(workdir), config, write=False)
    functional, like = first_state(config, mesh or data_mesh())
    with Checkpoints(Path(workdir), keep=train_settings(config).keep) as checkpoints:
        return Run(config, functional, checkpoints.load(like, step))


def categories_of(workdir: str | Path) -> CategoryTable:
    """The categories that a run was trained on. Raises UserError if the workdir does not tell."""
    file = Path(workdir) / CATEGORIES
    if not file.is_file():
        raise UserError(f"{file} does not exist: train.py with the run's config writes it, also for a finished run")
    return category_table(read_json(file))
