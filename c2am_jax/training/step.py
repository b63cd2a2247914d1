"""The training step: the only shard_map of training."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from c2am_jax.models.functional import Arrays, Functional
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.structures import Batch
from c2am_jax.training.state import TrainState

AXIS = "data"
Metrics = dict[str, jax.Array]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (or those given) in one row."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def image_keys(seed: int, step: jax.Array, images: int) -> jax.Array:
    """One PRNG key per image of this device.

    A function of (seed, step, position in the global batch): it does not matter how many devices share the batch.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    position = jax.lax.axis_index(AXIS) * images + jnp.arange(images)
    return jax.vmap(lambda p: jax.random.fold_in(key, p))(position)


def make_train_step(
    functional: Functional,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Callable[[TrainState, Batch, tuple[int, int]], tuple[TrainState, Metrics]]:
    """``(state, batch, bucket) -> (state, metrics)``, compiled once per bucket; the old state is given up.

    Metrics are global scalars: "loss", "loss/NAME", "grad_norm" and those of the detector.
    """

    def local_step(state: TrainState, batch: Batch, bucket: tuple[int, int]) -> tuple[TrainState, Metrics]:
        inputs = preprocess(batch, bucket, mean=mean, std=std)
        keys = image_keys(seed, state.step, inputs.image.shape[0])

        def total_loss(params):
            model = functional.merge(params, state.rest)
            losses, metrics, loss_state = model.loss(inputs, keys, state.loss_state, axis_name=AXIS)
            _, rest = functional.split(model)
            return sum(losses.values()), (losses, metrics, loss_state, rest)

        # Losses are means over all devices, so the gradients of the replicated parameters come summed over them.
        gradient, (losses, metrics, loss_state, rest) = jax.grad(total_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = cast(Arrays, optax.apply_updates(state.params, updates))
        metrics = {
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
            **metrics,
            "grad_norm": optax.global_norm(gradient),
        }
        return TrainState(state.step + 1, params, rest, loss_state, opt_state), metrics

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def step(state, batch, bucket):
        mapped = jax.shard_map(
            functools.partial(local_step, bucket=bucket),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
        )
        return mapped(state, batch)

    return step
