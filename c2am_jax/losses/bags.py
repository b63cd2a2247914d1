"""BAGS: softmax within groups of classes of like instance counts (Li et al., CVPR 2020).

The classifier gives K + 6 logits: K classes in label order, one "others" channel of each of the four groups, then
foreground and background of the fifth. Rules are those of the authors' code: a sample of another group is "others", of
which eight times the group's positives are kept; a group without positives in the batch contributes nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.softmax import softmax_cross_entropy

BOUNDS = (10, 100, 1000)  # instance counts at which the next group begins
GROUPS = len(BOUNDS) + 1
_ABSENT = -1e9  # logit of another group's class: finite, so that a group without classes has a gradient of 0, not NaN


def groups_of(instance_count: np.ndarray, bounds: tuple[int, ...] = BOUNDS) -> np.ndarray:
    """Group of each class: [K] counts -> int32 [K] in 0..3, rarest first."""
    return np.searchsorted(np.asarray(bounds), instance_count, side="right").astype(np.int32)


def group_logits(logits: Float[Array, "n c"], group: Int[Array, " k"], index: int) -> Float[Array, "n k1"]:
    """Logits of one group: its classes (those of others have no chance), then "others": [N, K + 1]."""
    classes = group.shape[0]
    own = jnp.where(group == index, logits[:, :classes], _ABSENT)
    return jnp.concatenate([own, logits[:, classes + index, None]], -1)


def kept_others(
    uniform: Float[Array, " n"],
    others: Float[Array, " n"],
    most: Float[Array, ""],
    axis_name: str | None,
) -> Float[Array, " n"]:
    """1 for the `most` "others" with the smallest random numbers over all devices, else 0: [N] -> [N].

    Args:
      uniform: one random number per sample.
      others: 1 for the samples to choose from.
      most: how many to keep; all if there are fewer.
      axis_name: mesh axis of the devices.
    """
    drawn = jnp.where(others > 0, uniform, jnp.inf)
    everyone = drawn if axis_name is None else jax.lax.all_gather(drawn, axis_name, tiled=True)
    smallest = jnp.append(jnp.sort(everyone), jnp.inf)
    limit = smallest[jnp.minimum(most.astype(jnp.int32), everyone.shape[0])]  # the first one left out
    return others * (drawn < limit)


def sample_numbers(key: jax.Array, count: int, axis_name: str | None) -> Float[Array, " n"]:
    """A random number per sample, a function of the key and the sample's position in the global batch only: [count]."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(lambda position: jax.random.uniform(jax.random.fold_in(key, position)))(first + jnp.arange(count))


def bags_loss(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    group: Int[Array, " k"],
    key: jax.Array,
    *,
    others_ratio: float = 8.0,
    axis_name: str | None = None,
) -> Float[Array, " n"]:
    """Sum over the five groups of ``w CE / (sum of w over all devices)``: each sample's share, [N].

    Args:
      logits: [N, K + 6].
      labels: 0..K, background K.
      weights: 1, or 0 for padding.
      group: of each class, [K].
      key: of the choice among "others".
      others_ratio: "others" kept per positive of a group.
      axis_name: mesh axis of the devices that share the batch.
    """
    classes = group.shape[0]
    is_background = labels == classes
    own_group = jnp.where(is_background, -1, group[jnp.minimum(labels, classes - 1)])
    objectness = softmax_cross_entropy(logits[:, -2:], is_background.astype(jnp.int32))
    total = weights * objectness / jnp.maximum(global_sum(weights.sum(), axis_name), 1.0)
    for index in range(GROUPS):
        positive = weights * (own_group == index)
        most = others_ratio * global_sum(positive.sum(), axis_name)
        uniform = sample_numbers(jax.random.fold_in(key, index), labels.shape[0], axis_name)
        counted = positive + kept_others(uniform, weights * (own_group != index), most, axis_name)
        target = jnp.where(own_group == index, labels, classes)
        loss = softmax_cross_entropy(group_logits(logits, group, index), target)
        total += counted * loss / jnp.maximum(global_sum(counted.sum(), axis_name), 1.0)
    return total


def bags_log_probabilities(logits: Float[Array, "n c"], group: Int[Array, " k"]) -> Float[Array, "n k1"]:
    """``ln(softmax of the class in its group) + ln P(foreground)``, then ``ln P(background)``: [N, K + 1].

    Their exponentials need not sum to one: every group has its own softmax.
    """
    classes = group.shape[0]
    objectness = jax.nn.log_softmax(logits[:, -2:], axis=-1)
    own = jnp.full_like(logits[:, :classes], _ABSENT)
    for index in range(GROUPS):
        within = jax.nn.log_softmax(group_logits(logits, group, index), axis=-1)[:, :classes]
        own = jnp.where(group == index, within, own)
    return jnp.concatenate([own + objectness[:, :1], objectness[:, 1:]], -1)
