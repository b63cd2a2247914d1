"""What an experiment's compiled programs hold, told before any data is there: the training step, and prediction."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from c2am_jax.ahead.compiled import Compiled, compile_and_describe
from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.evaluation.inference import make_predict
from c2am_jax.experiment import Experiment
from c2am_jax.mesh import batch_sharding, replicated
from c2am_jax.structures import Batch
from c2am_jax.training.loop import check_batch_size
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state
from c2am_jax.training.step import configured_step


def abstract_batch(experiment: Experiment, mesh: Mesh, images: int) -> Batch:
    """Shapes and placement of a global batch."""
    canvas = experiment.data.canvas
    most, sharding = experiment.data.max_instances, batch_sharding(mesh)

    def shape(dtype: Any, *dims: int) -> Any:
        return jax.ShapeDtypeStruct((images, *dims), dtype, sharding=sharding)

    return Batch(
        image=shape(jnp.uint8, canvas, canvas, 3),
        source_hw=shape(jnp.int32, 2),
        target_hw=shape(jnp.int32, 2),
        flip=shape(jnp.bool_),
        boxes=shape(jnp.float32, most, 4),
        labels=shape(jnp.int32, most),
        masks=shape(jnp.uint8, most, MASK_SIZE, MASK_SIZE // 8),
        valid=shape(jnp.bool_, most),
        image_id=shape(jnp.int32),
    )


def lower_step(experiment: Experiment, mesh: Mesh, bucket: tuple[int, int]) -> tuple[jax.stages.Lowered, int]:
    """The training step of `experiment` for one bucket, lowered, and the number of parameters that train.

    Raises:
      UserError: a batch that does not divide among the devices.
    """
    schedule = experiment.train
    check_batch_size(schedule, mesh)
    detector, loss_state = build_detector(experiment)
    optimizer = make_optimizer(schedule, Schedule(schedule, 1000).rate)
    step = configured_step(experiment, optimizer, mesh)
    state = jax.eval_shape(lambda: init_state(detector, loss_state, optimizer))
    batch = abstract_batch(experiment, mesh, schedule.batch_size)
    return step.lower(_everywhere(state, mesh), batch, bucket), _count(detector.params)


def lower_predict(experiment: Experiment, mesh: Mesh, bucket: tuple[int, int]) -> tuple[jax.stages.Lowered, int]:
    """The program that eval.py, predict and evaluation during training run, lowered, and its number of parameters.

    As there, the batch is rounded up to a multiple of the devices.
    """
    detector, _ = build_detector(experiment)
    predict = make_predict(mesh, experiment)
    batch = abstract_batch(experiment, mesh, images_per_device(experiment, mesh, "predict") * mesh.size)
    return predict.lower(_everywhere(detector, mesh), batch, bucket), _count(detector.params)


def images_per_device(experiment: Experiment, mesh: Mesh, program: str) -> int:
    """Images that one device works on in one run of a program."""
    batch = experiment.train.batch_size if program == "train" else experiment.eval.batch_size
    return -(-batch // mesh.size)


def describe(experiment: Experiment, mesh: Mesh, program: str = "train") -> Compiled:
    """Numbers of a program compiled for the largest bucket.

    Args:
      experiment: whose step or prediction.
      mesh: devices, there or not (`ahead.topology`).
      program: "train" or "predict".

    Returns:
      The program's text with "program", "devices", "bucket", "images_per_device", "parameters" that train, "jax", and
      what `ahead.compiled.compile_and_describe` tells.

    Raises:
      UserError: a batch that does not divide among the devices, or a program that does not fit in their memory.
    """
    bucket = max(experiment.data.buckets, key=math.prod)
    lowered, parameters = (lower_step if program == "train" else lower_predict)(experiment, mesh, bucket)
    kind, images = mesh.devices.flat[0].device_kind, images_per_device(experiment, mesh, program)
    found = compile_and_describe(lowered, kind, images)
    numbers: dict[str, Any] = {
        "program": program,
        "devices": f"{mesh.size} x {kind}",
        "bucket": list(bucket),
        "images_per_device": images,
        "parameters": parameters,
        "jax": jax.__version__,
    }
    return Compiled(found.text, numbers | found.numbers)


def _everywhere(tree: Any, mesh: Mesh) -> Any:
    """Shapes of arrays that lie on every device."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated(mesh)), tree)


def _count(arrays: dict[str, Any]) -> int:
    return sum(int(np.prod(value.shape)) for value in arrays.values())
