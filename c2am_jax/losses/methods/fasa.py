"""FASA: virtual features of rare classes added to any loss (Zang et al., ICCV 2021).

State of a head with K classes and D features, the same on every device:

  mean, variance  [K, D]  of each class's features, running averages
  seen            [K]     bool, classes that had a positive sample
  chance          [K]     probability that a class gets a virtual feature in a step
  batch_loss, batch_count [K]  losses of the last batch's positives, added up, and their number
  held_out        [K]     mean loss on held-out images after the last epoch; -1 where no sample was
  epoch, step     []      finished epochs, steps

The source groups classes by affinity propagation of squared distances, where the algorithm expects similarities, and
measures on the validation set; here they are negative squared distances and a held-out part of the training set
(`config.data.held_out`). The source keeps statistics per device; here all devices have the same.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from c2am_jax.checks import NonNegative, Share, one_of
from c2am_jax.losses.classification import Classification, Head, Samples, State
from c2am_jax.losses.methods.c2am import c2am
from c2am_jax.losses.methods.cosine import cosine
from c2am_jax.losses.methods.softmax import softmax
from c2am_jax.losses.moments import no_moments, updated_statistics
from c2am_jax.losses.statistics import ClassStatistics

BASES = {"softmax": softmax, "cosine": cosine, "c2am": c2am}
STATE = dict[str, jax.Array]
UNKNOWN = -1.0


def first_chances(instances: np.ndarray) -> np.ndarray:
    """``(1 / n_c) / sum_j (1 / n_j)`` of the instance counts, [K]."""
    return (1 / instances) / (1 / instances).sum()


def first_state(chances: np.ndarray, width: int) -> STATE:
    """Nothing seen, no virtual feature before the first epoch is over."""
    classes = len(chances)
    return {
        **no_moments(classes, width),
        "chance": jnp.asarray(chances, jnp.float32),
        "batch_loss": jnp.zeros(classes),
        "batch_count": jnp.zeros(classes),
        "held_out": jnp.full(classes, UNKNOWN),
        "epoch": jnp.zeros((), jnp.int32),
        "step": jnp.zeros((), jnp.int32),
    }


def draw_virtual(state: STATE, key: jax.Array) -> tuple[Float[Array, "k d"], Bool[Array, " k"]]:
    """A feature ``mean + sqrt(variance) * normal`` of every class, and which classes are drawn: each by its chance.

    None before the first epoch is over, and none of a class that was not seen.
    """
    chance_key, normal_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, state["mean"].shape)
    drawn = jax.random.uniform(chance_key, state["chance"].shape) < state["chance"]
    return state["mean"] + jnp.sqrt(state["variance"]) * normal, drawn & state["seen"] & (state["epoch"] > 0)


def affinity_propagation(
    similarity: np.ndarray, *, damping: float = 0.5, steps: int = 200, patience: int = 15
) -> np.ndarray:
    """Clusters by message passing (Frey and Dueck, Science 2007): the exemplar of each point, int [N].

    Preferences are the median similarity. Ties are broken by a tiny slope over the columns, so that the result is a
    function of the similarities alone. Points stay alone if no exemplar was found.

    Args:
      similarity: [N, N], larger is more alike.
      damping: share of the old messages.
      steps: at most.
      patience: steps without another set of exemplars after which it is over.
    """
    count = len(similarity)
    if count < 2 or np.ptp(similarity) == 0:
        return np.arange(count)
    s = similarity.astype(np.float64)
    np.fill_diagonal(s, np.median(s[~np.eye(count, dtype=bool)]))
    s = s - 1e-12 * np.ptp(s) * np.arange(count)
    responsibility, availability = np.zeros_like(s), np.zeros_like(s)
    rows, last, unchanged = np.arange(count), np.zeros(0, int), 0
    for _ in range(steps):
        both = availability + s
        best = both.argmax(1)
        largest = both[rows, best]
        both[rows, best] = -np.inf
        others = np.broadcast_to(largest[:, None], s.shape).copy()
        others[rows, best] = both.max(1)
        responsibility = damping * responsibility + (1 - damping) * (s - others)

        support = np.maximum(responsibility, 0)
        support[rows, rows] = responsibility[rows, rows]
        column = support.sum(0)[None] - support
        own = column[rows, rows].copy()
        column = np.minimum(column, 0)
        column[rows, rows] = own
        availability = damping * availability + (1 - damping) * column

        exemplar = np.flatnonzero((availability + responsibility)[rows, rows] > 0)
        unchanged = unchanged + 1 if len(exemplar) and np.array_equal(exemplar, last) else 0
        last = exemplar
        if unchanged >= patience:
            break
    if not len(last):
        return rows

    def assigned(exemplars):
        chosen = exemplars[s[:, exemplars].argmax(1)]
        chosen[exemplars] = exemplars
        return chosen

    members = [np.flatnonzero(assigned(last) == exemplar) for exemplar in last]
    best = [own[s[np.ix_(own, own)].sum(0).argmax()] for own in members]  # the member that is most like all others
    return assigned(np.sort(best))


def updated_chances(
    chances: np.ndarray,
    groups: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    up: float = 1.1,
    down: float = 0.9,
) -> np.ndarray:
    """A group whose summed loss fell is drawn `up` times as often, one whose loss rose `down` times; [K] in [0, 1].

    Args:
      chances, groups: of each class.
      before, after: mean held-out losses of each class, `UNKNOWN` where there is no sample. Classes without a loss on
        one side are not summed; a group of such classes stays as it is.
    """
    known = (before != UNKNOWN) & (after != UNKNOWN)
    change = np.bincount(groups, np.where(known, after - before, 0.0), minlength=len(chances))[groups]
    return np.clip(chances * np.where(change < 0, up, np.where(change > 0, down, 1.0)), 0.0, 1.0)


def fasa(
    statistics: ClassStatistics,
    base: Annotated[str, one_of(*BASES)] = "softmax",
    weight: NonNegative = 0.1,
    momentum: Share = 0.1,
    up: float = 1.1,
    down: float = 0.9,
    seed: int = 0,
) -> Classification:
    """The loss `base`, plus `weight` times its mean over virtual features.

    Virtual features start with the second epoch and are drawn by a key of (seed, step), the same on every device. After
    each epoch the losses on held-out images say which groups of classes get more of them.
    """
    inner = BASES[base]()
    chances = first_chances(statistics.instances)

    def loss(samples: Samples, head: Head, state):
        classes = state["seen"].shape[0]
        own, _ = inner.loss(samples, head, {})
        virtual, drawn = draw_virtual(state, jax.random.fold_in(jax.random.key(seed), state["step"]))
        is_drawn = drawn.astype(jnp.float32)
        added, _ = inner.loss(Samples(virtual.astype(samples.features.dtype), jnp.arange(classes), is_drawn), head, {})
        mean_added = jnp.where(drawn, added, 0.0).sum() / jnp.maximum(is_drawn.sum(), 1.0)

        fixed, losses = jax.lax.stop_gradient((samples, own))
        new = updated_statistics(state, fixed, momentum=momentum)
        batch_loss, batch_count = fixed.class_sums(losses, classes)
        new |= {"batch_loss": batch_loss, "batch_count": batch_count, "step": state["step"] + 1}
        # The caller divides the sum over all samples by their number: a constant for each adds itself.
        return own + weight * mean_added, state | new

    def after_epoch(state: State, sums: dict[str, np.ndarray]) -> State:
        count = sums["batch_count"]
        measured = np.where(count > 0, sums["batch_loss"] / np.maximum(count, 1), UNKNOWN)
        mean, seen = np.asarray(state["mean"], np.float64), np.flatnonzero(np.asarray(state["seen"]))
        groups = np.arange(len(mean))
        squares = (mean[seen] ** 2).sum(1)
        distance = np.maximum(squares[:, None] + squares - 2 * mean[seen] @ mean[seen].T, 0)
        groups[seen] = seen[affinity_propagation(-distance)]
        before, chance = np.asarray(state["held_out"]), np.asarray(state["chance"], np.float64)
        chance = updated_chances(chance, groups, before, measured, up=up, down=down)
        return state | {
            "chance": chance.astype(np.float32),
            "held_out": measured.astype(np.float32),
            "epoch": np.asarray(state["epoch"]) + 1,
        }

    def init_state(num_classes, width):
        return first_state(np.broadcast_to(chances, num_classes), width)

    measured = ("batch_loss", "batch_count")
    return dataclasses.replace(inner, loss=loss, init_state=init_state, after_epoch=after_epoch, measured=measured)
