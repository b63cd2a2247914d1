"""What a method does after each epoch, with its losses on images that never train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2am_jax.config import train_settings
from c2am_jax.data.pipeline import eval_batches
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.sampler import held_out_images
from c2am_jax.data.settings import PipelineSettings
from c2am_jax.errors import UserError
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.methods import make_classification
from c2am_jax.mesh import AXIS, ImageProgram, LocalImages, on_devices, replicated
from c2am_jax.training.state import TrainState, class_statistics


def epoch_end(config: ConfigDict, dataset: PreparedDataset, mesh: Mesh) -> Callable[[TrainState], TrainState] | None:
    """`Classification.after_epoch` of the config's method for a whole state; None for methods without.

    Raises:
      UserError: no image is held out, but the method measures on such images.
    """
    method = make_classification(statistics=class_statistics(dataset), **config.loss.to_dict())
    after_epoch = method.after_epoch
    if after_epoch is None:
        return None
    data = PipelineSettings.from_dict(config.data.to_dict())
    images = held_out_images(dataset, data.held_out)
    if not len(images):
        raise UserError(
            f"loss {config.loss.name} measures on held-out training images, and there are none: set "
            f"config.data.held_out to a share of the {len(dataset.image_hw)} images, such as 0.05"
        )
    measure = _make_measure(config, method, mesh)

    def finish(state: TrainState) -> TrainState:
        totals: list[dict[str, Any]] = [dict.fromkeys(method.measured, 0.0) for _ in state.loss_state]
        process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        batches = eval_batches(dataset, data, batch_size=config.train.batch_size, images=images, **process)
        for number, (bucket, batch) in enumerate(batches):
            found = measure((state, number), on_devices(batch, mesh), bucket)
            for total, stage in zip(totals, found, strict=True):
                total.update({name: total[name] + np.asarray(value, np.float64) for name, value in stage.items()})
        stages = [jax.tree.map(np.asarray, stage) for stage in state.loss_state]
        new = [after_epoch(stage, total) for stage, total in zip(stages, totals, strict=True)]
        return dataclasses.replace(state, loss_state=jax.device_put(new, replicated(mesh)))

    return finish


def _make_measure(config: ConfigDict, method: Classification, mesh: Mesh) -> ImageProgram:
    """``((state, number), batch, bucket) -> [{name: value}]``: `measured` of each stage's state after a batch."""
    schedule = train_settings(config)

    def measure(value: tuple[TrainState, Any], images: LocalImages) -> list[dict[str, Any]]:
        state, number = value
        model = state.detector.module()
        _, _, after = model.loss(images.inputs, images.keys(number), state.loss_state, axis_name=AXIS)
        return [{name: stage[name] for name in method.measured} for stage in after]

    pixels = {"mean": config.data.mean, "std": config.data.std, "compute_dtype": schedule.compute_dtype}
    return ImageProgram(measure, mesh, **pixels, seed=schedule.seed)
