"""The training step: the only shard_map of training."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from c2am_jax.config import train_settings
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


def image_key(seed: jax.Array | int, step: jax.Array | int, position: jax.Array) -> jax.Array:
    """PRNG keys of images at `position` [N] of the global batch.

    A function of (seed, step, position) only: it does not matter how many devices share the batch.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda p: jax.random.fold_in(key, p))(position)


class TrainStep:
    """``(state, batch, bucket) -> (state, metrics)``, compiled once per bucket; the old state is given up.

    The seed is an argument of the program, so runs that differ in their seed share one (and its entry in a cache).
    """

    def __init__(self, program: Any, seed: int):
        """`program` is the jitted ``(state, batch, seed, bucket)``."""
        self._program, self.seed = program, np.uint32(seed & 0xFFFFFFFF)

    def __call__(self, state: TrainState, batch: Batch, bucket: tuple[int, int]) -> tuple[TrainState, Metrics]:
        """One step."""
        return self._program(state, batch, self.seed, bucket)

    def lower(self, state: TrainState, batch: Batch, bucket: tuple[int, int]) -> jax.stages.Lowered:
        """The program; compiled, it takes ``(state, batch, seed)``."""
        return self._program.lower(state, batch, self.seed, bucket)


def make_train_step(
    functional: Functional,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    accumulate: int = 1,
    compute_dtype: str = "float32",
) -> TrainStep:
    """The step of a detector.

    Metrics are global scalars: "loss", "loss/NAME", "grad_norm" and those of the detector.

    Args:
      functional, optimizer, mesh: what trains, how, and where.
      mean, std: of pixels.
      seed: of the choice of anchors and RoIs.
      accumulate: parts that a device's images are split into, one after the other; gradients and metrics are the means
        over the parts, so means over positives are taken part by part.
      compute_dtype: of features and convolutions, "float32" or "bfloat16"; parameters, boxes, normalisation statistics
        and losses stay float32.
    """

    def gradients(params, rest, loss_state, batch, keys, bucket):
        """This device's share of the gradients of one part, with metrics and new statistics."""
        inputs = preprocess(batch, bucket, mean=mean, std=std)
        inputs = dataclasses.replace(inputs, image=inputs.image.astype(compute_dtype))

        def total_loss(params):
            model = functional.merge(params, rest)
            losses, metrics, new_loss_state = model.loss(inputs, keys, loss_state, axis_name=AXIS)
            _, new_rest = functional.split(model)
            metrics |= {f"loss/{name}": value for name, value in losses.items()}
            total = sum(losses.values())
            return total, (metrics | {"loss": total}, new_rest, new_loss_state)

        return jax.grad(total_loss, has_aux=True)(params)

    def local_step(
        state: TrainState, batch: Batch, seed: jax.Array, bucket: tuple[int, int]
    ) -> tuple[TrainState, Metrics]:
        images = batch.image.shape[0]
        keys = image_key(seed, state.step, jax.lax.axis_index(AXIS) * images + jnp.arange(images))
        # As varying values, parameters get gradients of this device's images only; each is summed over the devices
        # once below, not at every place where a parameter is used.
        params = jax.tree.map(lambda p: jax.lax.pcast(p, AXIS, to="varying"), state.params)
        if accumulate == 1:
            gradient, (metrics, rest, loss_state) = gradients(params, state.rest, state.loss_state, batch, keys, bucket)
        else:
            parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (batch, keys))

            def one_part(carry, part):
                total, rest, loss_state = carry
                gradient, (metrics, rest, loss_state) = gradients(params, rest, loss_state, *part, bucket)
                return (jax.tree.map(jnp.add, total, gradient), rest, loss_state), metrics

            start = jax.tree.map(jnp.zeros_like, params), state.rest, state.loss_state
            (total, rest, loss_state), history = jax.lax.scan(one_part, start, parts)
            gradient, metrics = (
                jax.tree.map(lambda g: g / accumulate, total),
                jax.tree.map(lambda m: m.mean(0), history),
            )
        gradient = jax.lax.psum(gradient, AXIS)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = cast(Arrays, optax.apply_updates(state.params, updates))
        metrics |= {"grad_norm": optax.global_norm(gradient)}
        return TrainState(state.step + 1, params, rest, loss_state, opt_state), metrics

    @functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
    def step(state, batch, seed, bucket):
        mapped = jax.shard_map(
            functools.partial(local_step, bucket=bucket),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
            out_specs=PartitionSpec(),
        )
        return mapped(state, batch, seed)

    return TrainStep(step, seed)


def configured_step(
    config: ConfigDict, functional: Functional, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainStep:
    """`make_train_step` with what `config.data` and `config.train` say."""
    schedule = train_settings(config)
    return make_train_step(
        functional,
        optimizer,
        mesh,
        mean=config.data.mean,
        std=config.data.std,
        seed=schedule.seed,
        accumulate=schedule.accumulate,
        compute_dtype=schedule.compute_dtype,
    )
