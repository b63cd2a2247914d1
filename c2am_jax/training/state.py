"""What a training run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import register_dataclass
from ml_collections import ConfigDict

from c2am_jax.config import detector_settings, train_settings
from c2am_jax.errors import UserError
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.models.detector import build_model
from c2am_jax.models.freezing import freeze_others
from c2am_jax.models.functional import Arrays, Functional


@register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint holds.

    Attributes:
      step: int32, steps done.
      params: arrays that train, by dotted name.
      rest: frozen arrays and running statistics, by dotted name.
      loss_state: running state of the classification loss, per stage of the RoI head.
      opt_state: of the optax chain.
    """

    step: jax.Array
    params: Arrays
    rest: Arrays
    loss_state: Any
    opt_state: Any


def build_functional(
    config: ConfigDict, statistics: ClassStatistics | None = None
) -> tuple[Functional, Arrays, Arrays, Any]:
    """The detector of a config with random weights: structure, params, rest and the loss's first state.

    Params are what `config.train.trainable` lets train, all if it is empty. `statistics` of the training set are for
    losses that use them.

    Raises:
      UserError: a value that a part of the detector does not know.
    """
    settings = detector_settings(config)
    try:
        model = build_model(settings, config.loss.to_dict(), statistics=statistics, seed=config.train.seed)
        freeze_others(model, train_settings(config).trainable)
    except ValueError as error:
        raise UserError(f"config: {error}") from error
    return *Functional.of(model), model.roi_head.init_loss_state()


def init_state(params: Arrays, rest: Arrays, loss_state: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, rest, loss_state, optimizer.init(params))
