"""The training step."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.mesh import AXIS, ImageProgram, LocalImages
from c2am_jax.models.functional import Arrays, rest_of
from c2am_jax.training.state import TrainState


def make_train_step(
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    accumulate: int = 1,
    compute_dtype: str = "float32",
) -> ImageProgram:
    """``(state, batch, bucket) -> (state, metrics)``; the old state is given up.

    Metrics are global scalars: "loss", "loss/NAME", "grad_norm" and those of the detector.

    Args:
      optimizer, mesh: how the state's detector trains, and where.
      mean, std: of pixels.
      seed: of the choice of anchors and RoIs.
      accumulate: parts that a device's images are split into, one after the other; gradients and metrics are the means
        over the parts, so means over positives are taken part by part.
      compute_dtype: of features and convolutions, "float32" or "bfloat16"; parameters, boxes, normalisation statistics
        and losses stay float32.
    """

    def step(state: TrainState, images: LocalImages) -> tuple[TrainState, dict[str, jax.Array]]:
        def gradients(params, rest, loss_state, batch, keys):
            """This device's share of the gradients of one part, with metrics and new statistics."""
            inputs = images.prepare(batch)

            def total_loss(params):
                model = dataclasses.replace(state.detector, params=params, rest=rest).module()
                losses, metrics, new_loss_state = model.loss(inputs, keys, loss_state, axis_name=AXIS)
                _check_same_everywhere({"metric": metrics, "state": new_loss_state})
                metrics |= {f"loss/{name}": value for name, value in losses.items()}
                total = sum(losses.values())
                return total, (metrics | {"loss": total}, rest_of(model), new_loss_state)

            return jax.grad(total_loss, has_aux=True)(params)

        keys = images.keys(state.step)
        # As varying values, parameters get gradients of this device's images only; each is summed over the devices
        # once below, not at every place where a parameter is used.
        params = jax.tree.map(lambda p: jax.lax.pcast(p, AXIS, to="varying"), state.params)
        if accumulate == 1:
            gradient, (metrics, rest, loss_state) = gradients(params, state.rest, state.loss_state, images.batch, keys)
        else:
            parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (images.batch, keys))

            def one_part(carry, part):
                total, rest, loss_state = carry
                gradient, (metrics, rest, loss_state) = gradients(params, rest, loss_state, *part)
                return (jax.tree.map(jnp.add, total, gradient), rest, loss_state), metrics

            start = jax.tree.map(jnp.zeros_like, params), state.rest, state.loss_state
            (total, rest, loss_state), history = jax.lax.scan(one_part, start, parts)
            gradient = jax.tree.map(lambda g: g / accumulate, total)
            metrics = jax.tree.map(lambda m: m.mean(0), history)
        gradient = jax.lax.psum(gradient, AXIS)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = cast(Arrays, optax.apply_updates(state.params, updates))
        metrics |= {"grad_norm": optax.global_norm(gradient)}
        return TrainState(state.step + 1, params, rest, loss_state, opt_state, state.structure), metrics

    return ImageProgram(step, mesh, mean=mean, std=std, seed=seed, compute_dtype=compute_dtype, donate=True)


def configured_step(experiment: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh) -> ImageProgram:
    """`make_train_step` with what `config.data` and `config.train` say."""
    pixels, run = experiment.data.pixels, experiment.train
    return make_train_step(
        optimizer, mesh, **pixels, seed=run.seed, accumulate=run.accumulate, compute_dtype=run.compute_dtype
    )


def _check_same_everywhere(found: dict[str, Any]) -> None:
    """Metrics and states of a loss are those of the whole batch.

    Raises:
      UserError: one that each device has made of its own images only; the text names it.
    """
    for path, value in jax.tree.leaves_with_path(found):
        if AXIS in jax.typeof(value).manual_axis_type.varying:
            kind, *names = (str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
            raise UserError(
                f"{kind} {'/'.join(names)} of the loss is of one device's images only: make it one value of all "
                "devices with samples.sum or samples.max (docs/adding_a_loss.md)"
            )
