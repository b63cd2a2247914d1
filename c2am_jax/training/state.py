"""What a training run carries from step to step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import register_dataclass

from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.models.detector import build_model
from c2am_jax.models.freezing import freeze_others
from c2am_jax.models.functional import Arrays, Detector, Structure
from c2am_jax.training.trees import trees_of


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
      structure: of the detector whose arrays these are; static, in no checkpoint.
    """

    step: jax.Array
    params: Arrays
    rest: Arrays
    loss_state: Any
    opt_state: Any
    structure: Structure = dataclasses.field(metadata={"static": True})

    @property
    def detector(self) -> Detector:
        """The detector as it is now."""
        return Detector(self.structure, self.params, self.rest)


def class_statistics(dataset: PreparedDataset) -> ClassStatistics:
    """Counts of the training set's classes, for methods that use them."""
    table, per_image = dataset.categories, np.diff(dataset.label_offset)
    instances, images = table.instance_count.astype(np.float64), table.image_count.astype(np.float64)
    return ClassStatistics(instances, images, int((per_image > 0).sum()), trees_of(dataset))


def build_detector(
    experiment: Experiment,
    statistics: ClassStatistics | None = None,
    calibrate: Callable[[Classification], Classification] = lambda method: method,
) -> tuple[Detector, Any]:
    """The detector of an experiment with random weights, and the loss's first state.

    Params are what `config.train.trainable` lets train, all if it is empty. `statistics` of the training set are for
    losses that use them; `calibrate` changes the method's inference rule.

    Raises:
      UserError: a value that a part of the detector does not know, or a calibration that does not go with the loss.
    """
    loss, seed = experiment.loss.as_dict(), experiment.train.seed
    try:
        model = build_model(experiment.model, loss, statistics=statistics, seed=seed)
        freeze_others(model, experiment.train.trainable)
        model.roi_head.classification = calibrate(model.roi_head.classification)
    except ValueError as error:
        raise UserError(f"config: {error}") from error
    return Detector.of(model), model.roi_head.init_loss_state()


def init_state(detector: Detector, loss_state: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Weak types (those of `jnp.full(shape, 0.0)`) become plain ones, as a step returns them: else the second and the
    third step would each compile again.
    """
    params, rest = detector.params, detector.rest
    state = TrainState(jnp.zeros((), jnp.int32), params, rest, loss_state, optimizer.init(params), detector.structure)
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)
