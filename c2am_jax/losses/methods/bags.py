"""BAGS: softmax within groups of classes of like instance counts (Li et al., CVPR 2020).

The classifier gives K + 6 logits: K classes in label order, one "others" channel of each of the four groups, then
foreground and background of the fifth. Rules are those of the authors' code: a sample of another group is "others", of
which eight times the group's positives are kept; a group without positives in the batch contributes nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.checks import NonNegative
from c2am_jax.losses.classification import Classification, Head, Samples, count_steps
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.draws import smallest, uniforms
from c2am_jax.losses.statistics import ClassStatistics

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
    samples: Samples,
    group: Int[Array, " k"],
    uniform: Float[Array, "n 4"],
    *,
    others_ratio: float = 8.0,
) -> Float[Array, " n"]:
    """Sum over the five groups of ``w CE / (sum of w over all devices)``: each sample's share, [N].

    Args:
      logits: [N, K + 6].
      samples: labels and weights.
      group: of each class, [K].
      uniform: a random number for each sample and group (`draws.uniforms`): "others" with the smallest ones are kept.
      others_ratio: "others" kept per positive of a group.
    """
    classes, labels, weights = group.shape[0], samples.labels, samples.weights
    is_background = labels == classes
    own_group = jnp.where(is_background, -1, group[jnp.minimum(labels, classes - 1)])
    objectness = softmax_cross_entropy(logits[:, -2:], is_background.astype(jnp.int32))
    total = weights * objectness / samples.count
    for index in range(GROUPS):
        positive = weights * (own_group == index)
        most = others_ratio * samples.sum(positive.sum())
        others = (weights > 0) & (own_group != index)
        counted = positive + smallest(others, uniform[:, index], most, samples)
        target = jnp.where(own_group == index, labels, classes)
        loss = softmax_cross_entropy(group_logits(logits, group, index), target)
        total += counted * loss / jnp.maximum(samples.sum(counted.sum()), 1.0)
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


def bags(statistics: ClassStatistics, others_ratio: NonNegative = 8.0, seed: int = 0) -> Classification:
    """The groups are part of the head, so a checkpoint is evaluated with those it was trained with.

    A cascade averages log-probabilities, which is a geometric mean over its stages. Its state is the step, from which
    the draws follow.
    """
    groups = groups_of(statistics.instances)

    def logits(features: jax.Array, head: Head):
        return bags_log_probabilities(head.linear(features), head.extra["group"])

    def loss(samples: Samples, head: Head, state):
        uniform = uniforms(seed, state["step"], GROUPS, samples)
        own = head.linear(samples.features)
        shares = bags_loss(own, samples, head.extra["group"], uniform, others_ratio=others_ratio)
        return shares * samples.count, {"step": state["step"] + 1}  # the caller divides by their number

    def extra_parameters(num_classes, width, draw_key):
        return {"group": jnp.asarray(np.broadcast_to(groups, num_classes))}

    return Classification(
        "linear",
        loss,
        logits,
        own_activation=jnp.exp,
        init_state=count_steps,
        extra_outputs=GROUPS + 1,
        extra_parameters=extra_parameters,
    )
