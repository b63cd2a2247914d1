"""Evaluate a checkpoint of a workdir."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from c2am_jax.config import train_settings
from c2am_jax.errors import UserError
from c2am_jax.evaluation.evaluate import evaluate
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.optimizer import learning_rate, make_optimizer
from c2am_jax.training.state import build_functional, init_state
from c2am_jax.training.step import data_mesh, replicated


def evaluate_checkpoint(config: ConfigDict, workdir: str | Path, step: int | None = None) -> dict[str, float]:
    """Metrics of the checkpoint of `step` (default: the newest) on the validation split.

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
        state = checkpoints.load(like, step)
    return evaluate(config, functional, state.params, state.rest, workdir, int(state.step))
