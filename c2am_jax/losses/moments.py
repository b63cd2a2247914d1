"""Running mean and variance of each class's features, for methods that draw features of rare classes."""

import jax
import jax.numpy as jnp

from c2am_jax.losses.classification import Samples

State = dict[str, jax.Array]


def no_moments(classes: int, width: int) -> State:
    """Before anything was seen: "mean" and "variance" [K, D], "seen" bool [K]."""
    # An array each: a step gives the buffers of its state away, and one buffer goes once.
    shape = classes, width
    return {"mean": jnp.zeros(shape), "variance": jnp.zeros(shape), "seen": jnp.zeros(classes, bool)}


def updated_statistics(state: State, samples: Samples, *, momentum: float = 0.1) -> State:
    """New mean, variance and seen of the classes of this batch's foreground, over all devices.

    A class's first batch is copied, later ones enter with `momentum`; variances are unbiased, 0 of a single sample.
    """
    classes = state["seen"].shape[0]
    positive, labels, features = samples.foreground(classes), samples.labels, samples.features.astype(jnp.float32)
    member = jax.nn.one_hot(jnp.where(positive, labels, classes), classes, dtype=jnp.float32)
    count = samples.sum(member.sum(0))[:, None]
    mean = samples.sum(member.T @ features) / jnp.maximum(count, 1)
    # Squares of distances to the mean of all devices: squares of the features would cancel.
    distance = jnp.where(positive[:, None], features - mean[jnp.minimum(labels, classes - 1)], 0.0)
    variance = samples.sum(member.T @ distance**2) / jnp.maximum(count - 1, 1)
    share = jnp.where(state["seen"], momentum, 1.0)[:, None] * (count > 0)
    return {
        "mean": state["mean"] + share * (mean - state["mean"]),
        "variance": state["variance"] + share * (variance - state["variance"]),
        "seen": state["seen"] | (count[:, 0] > 0),
    }
