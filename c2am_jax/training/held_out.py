"""What a method does after each epoch, with its losses on images that never train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from c2am_jax.data.pipeline import eval_batches
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.sampler import held_out_images
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.losses.classification import Classification
from c2am_jax.mesh import AXIS, ImageProgram, LocalImages, on_devices, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.training.state import TrainState
from c2am_jax.wording import counted


def epoch_end(
    experiment: Experiment, detector: Detector, dataset: PreparedDataset, mesh: Mesh
) -> Callable[[TrainState], TrainState] | None:
    """`Classification.after_epoch` of the detector's method for a whole state; None for methods without.

    A method that measures nothing needs no images.

    Raises:
      UserError: no image is held out, but the method measures on such images.
    """
    method = detector.module().roi_head.classification
    after_epoch = method.after_epoch
    if after_epoch is None:
        return None
    data = experiment.data
    images = held_out_images(dataset, data.held_out) if method.measured else np.zeros(0, np.int64)
    if method.measured and not len(images):
        raise UserError(
            f"loss {experiment.loss.name} measures on held-out training images, and there are none: set "
            f"config.data.held_out to a share of the {counted(len(dataset.image_hw), 'image')}, such as 0.05"
        )
    measure = _make_measure(experiment, method, mesh)

    def finish(state: TrainState) -> TrainState:
        totals: list[dict[str, Any]] = [dict.fromkeys(method.measured, 0.0) for _ in state.loss_state]
        process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        given = {"batch_size": experiment.train.batch_size, "images": images, **process}
        for number, (bucket, batch) in enumerate(eval_batches(dataset, data, **given) if len(images) else ()):
            found = measure((state, number), on_devices(batch, mesh), bucket)
            for total, stage in zip(totals, found, strict=True):
                total.update({name: total[name] + np.asarray(value, np.float64) for name, value in stage.items()})
        stages = [jax.tree.map(np.asarray, stage) for stage in state.loss_state]
        new = [after_epoch(stage, total) for stage, total in zip(stages, totals, strict=True)]
        return dataclasses.replace(state, loss_state=jax.device_put(new, replicated(mesh)))

    return finish


def _make_measure(experiment: Experiment, method: Classification, mesh: Mesh) -> ImageProgram:
    """``((state, number), batch, bucket) -> [{name: value}]``: `measured` of each stage's state after a batch."""
    schedule = experiment.train

    def measure(value: tuple[TrainState, Any], images: LocalImages) -> list[dict[str, Any]]:
        state, number = value
        model = state.detector.module()
        _, _, after = model.loss(images.inputs, images.keys(number), state.loss_state, axis_name=AXIS)
        return [{name: stage[name] for name in method.measured} for stage in after]

    pixels, dtype = experiment.data.pixels, schedule.compute_dtype
    return ImageProgram(measure, mesh, **pixels, seed=schedule.seed, compute_dtype=dtype)
