"""Methods that add features to any loss: FASA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import fasa as fasa_functions
from c2am_jax.losses.classification import Classification, State
from c2am_jax.losses.detection import class_sums
from c2am_jax.losses.methods import angular, inner_product
from c2am_jax.losses.statistics import ClassStatistics

BASES = {"softmax": inner_product.softmax, "cosine": angular.cosine, "c2am": angular.c2am}


def fasa(
    statistics: ClassStatistics,
    base: str = "softmax",
    features: int = 1024,
    weight: float = 0.1,
    momentum: float = 0.1,
    up: float = 1.1,
    down: float = 0.9,
    seed: int = 0,
) -> Classification:
    """FASA (Zang et al., ICCV 2021): the loss `base`, plus `weight` times its mean over virtual features.

    Virtual features start with the second epoch and are drawn by a key of (seed, step), the same on every device. After
    each epoch the losses on held-out images say which groups of classes get more of them. `features` is the width of
    the head.

    Raises:
      ValueError: an unknown `base`.
    """
    if base not in BASES:
        raise ValueError(f"loss.base must be one of {', '.join(BASES)}, not {base!r}")
    inner = BASES[base]()
    chances = fasa_functions.first_chances(statistics.instances)

    def loss(x, kernel, bias, labels, weights, state, axis_name=None):
        classes = state["seen"].shape[0]
        own, _ = inner.loss(x, kernel, bias, labels, weights, {}, axis_name)
        virtual, drawn = fasa_functions.draw_virtual(state, jax.random.fold_in(jax.random.key(seed), state["step"]))
        every, is_drawn = jnp.arange(classes), drawn.astype(jnp.float32)
        added, _ = inner.loss(virtual.astype(x.dtype), kernel, bias, every, is_drawn, {}, None)
        mean_added = jnp.where(drawn, added, 0.0).sum() / jnp.maximum(is_drawn.sum(), 1.0)

        positive = (weights > 0) & (labels < classes)
        fixed, losses = jax.lax.stop_gradient((x, own))
        new = fasa_functions.updated_statistics(state, fixed, labels, positive, momentum=momentum, axis_name=axis_name)
        batch_loss, batch_count = class_sums(losses, labels, positive, classes, axis_name)
        new |= {"batch_loss": batch_loss, "batch_count": batch_count, "step": state["step"] + 1}
        # The caller divides the sum over all samples by their number: a constant for each adds itself.
        return own + weight * mean_added, state | new

    def after_epoch(state: State, sums: dict[str, np.ndarray]) -> State:
        count = sums["batch_count"]
        measured = np.where(count > 0, sums["batch_loss"] / np.maximum(count, 1), fasa_functions.UNKNOWN)
        mean, seen = np.asarray(state["mean"], np.float64), np.flatnonzero(np.asarray(state["seen"]))
        groups = np.arange(len(mean))
        squares = (mean[seen] ** 2).sum(1)
        distance = np.maximum(squares[:, None] + squares - 2 * mean[seen] @ mean[seen].T, 0)
        groups[seen] = seen[fasa_functions.affinity_propagation(-distance)]
        chance = fasa_functions.updated_chances(
            np.asarray(state["chance"], np.float64), groups, np.asarray(state["held_out"]), measured, up=up, down=down
        )
        return state | {
            "chance": chance.astype(np.float32),
            "held_out": measured.astype(np.float32),
            "epoch": np.asarray(state["epoch"]) + 1,
        }

    def extra(num_classes, width, draw_key):
        del num_classes, draw_key
        if width != features:
            raise ValueError(f"loss.features={features}, but the box head has {width} (model.box_head.fc_channels)")
        return {}

    def init_state(num_classes):
        return fasa_functions.first_state(np.broadcast_to(chances, num_classes), features)

    return dataclasses.replace(
        inner,
        loss=loss,
        init_state=init_state,
        extra_parameters=extra,
        after_epoch=after_epoch,
        measured=("batch_loss", "batch_count"),
    )
