"""LOCE: mean scores steer the loss, remembered features add samples of weak classes (Feng et al., ICCV 2021).

State of a head with K classes and D features, the same on every device:

  score   [C]       mean softmax score q of each class on its own samples; background's stays where it starts
  bank    [K, M, D] the newest M features of each class, a ring
  seen    [K]       how many features each class has put there so far
  step    []

The source keeps 7x7 maps of jittered ground-truth boxes. The shared layers are frozen in this stage, so their outputs
can be kept instead; here they are those of the sampled positive RoIs, which lie around the ground truths as jittered
boxes do, and box regression gets no further samples. The bank fills as training goes: there is no pass before it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.losses.detection import class_sums, global_sum

FIRST_SCORE = 0.01
STATE = dict[str, jax.Array]


def first_state(num_classes: int, width: int, *, size: int = 80) -> STATE:
    """Scores of 0.01 and an empty bank."""
    return {
        "score": jnp.full(num_classes + 1, FIRST_SCORE),
        "bank": jnp.zeros((num_classes, size, width)),
        "seen": jnp.zeros(num_classes, jnp.int32),
        "step": jnp.zeros((), jnp.int32),
    }


def draw_entries(
    state: STATE, key: jax.Array, *, classes: int = 8, entries: int = 4
) -> tuple[Float[Array, "e d"], Int[Array, " e"], Bool[Array, " e"]]:
    """Remembered features: `classes` times a class with probability ~ 1/q, `entries` of each, with replacement.

    Returns:
      features [E, D], labels [E], and which of the E = classes * entries slots hold something: none while all banks
      are empty.
    """
    size = state["bank"].shape[1]
    filled = jnp.minimum(state["seen"], size)
    chances = jnp.where(filled > 0, -jnp.log(state["score"][:-1]), -jnp.inf)
    any_filled = (filled > 0).any()
    class_key, entry_key = jax.random.split(key)
    chosen = jax.random.categorical(class_key, jnp.where(any_filled, chances, 0.0), shape=(classes,))
    labels = jnp.repeat(chosen, entries)
    uniform = jax.random.uniform(entry_key, (classes * entries,))
    index = jnp.minimum((uniform * filled[labels]).astype(jnp.int32), size - 1)
    return state["bank"][labels, index], labels, jnp.broadcast_to(any_filled, labels.shape)


def updated_scores(
    score: Float[Array, " c"], sums: Float[Array, " k"], entries: Float[Array, " k"], *, momentum: float = 0.9
) -> Float[Array, " c"]:
    """``q <- m^n q + (1 - m^n) mean`` for a class with n entries whose values add up to `sums`; background stays."""
    kept = momentum**entries
    mean = sums / jnp.maximum(entries, 1.0)
    return score.at[:-1].set(kept * score[:-1] + (1 - kept) * mean)


def remember(
    bank: Float[Array, "k m d"],
    seen: Int[Array, " k"],
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    positive: Bool[Array, " n"],
    *,
    most: int = 512,
    axis_name: str | None = None,
) -> tuple[Float[Array, "k m d"], Int[Array, " k"]]:
    """Put the first `most` positive samples of the global batch into the rings of their classes, in order.

    Args:
      bank, seen: of the state.
      features, labels, positive: of this device's samples.
      most: static number of features that one step can store.
      axis_name: mesh axis; every device stores the samples of all.
    """
    classes, size, width = bank.shape
    own = positive.sum()
    before = jnp.zeros((), own.dtype)
    if axis_name is not None:
        counts = jax.lax.all_gather(own, axis_name)
        before = jnp.where(jnp.arange(counts.shape[0]) < jax.lax.axis_index(axis_name), counts, 0).sum()
    rank = jnp.where(positive, before + jnp.cumsum(positive) - 1, most)  # ranks from `most` on are dropped
    everyone = global_sum(jnp.zeros((most, width)).at[rank].set(features.astype(bank.dtype), mode="drop"), axis_name)
    label = global_sum(jnp.zeros(most, jnp.int32).at[rank].set(labels + 1, mode="drop"), axis_name) - 1  # -1: nothing
    is_class = (label[:, None] == jnp.arange(classes)[None]).astype(jnp.int32)
    earlier = ((jnp.cumsum(is_class, 0) - is_class) * is_class).sum(-1)
    total = is_class.sum(0)
    kept = (label >= 0) & (earlier >= total[label] - size)  # of more than the ring holds, the last
    slot = jnp.where(kept, (seen[label] + earlier) % size, size)
    return bank.at[label, slot].set(everyone, mode="drop"), seen + total


def class_scores(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    positive: Bool[Array, " n"],
    *,
    axis_name: str | None = None,
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Sum over all devices of the softmax scores that positives give their own class, and their number: [K] each."""
    classes = logits.shape[1] - 1
    own = jnp.take_along_axis(jax.nn.softmax(logits, -1), labels[:, None], 1)[:, 0]
    return class_sums(own, labels, positive, classes, axis_name)
