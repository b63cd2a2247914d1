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
from c2am_jax.losses.draws import smallest
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


def bags_loss(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    group: Int[Array, " k"],
    uniform: Float[Array, "n 4"],
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
      uniform: a random number for each sample and group (`draws.uniforms`): "others" with the smallest ones are kept.
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
        others = (weights > 0) & (own_group != index)
        counted = positive + smallest(others, uniform[:, index], most, axis_name)
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
