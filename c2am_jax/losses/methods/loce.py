"""LOCE, a second stage (Feng et al., ICCV 2021): mean scores steer the loss, remembered features add samples.

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
from jaxtyping import Array, Bool, Float, Int, Num

from c2am_jax.checks import Count, Share
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy

FIRST_SCORE = 0.01
STATE = dict[str, jax.Array]


def equilibrium_loss(
    logits: Num[Array, "n c"], labels: Int[Array, "n"], mean_scores: Float[Array, " c"]
) -> Float[Array, "n"]:
    """Softmax cross-entropy of ``z_j + ln q_j`` (Eq. 2): [N].

    `mean_scores` q_j [C] are what each class scores on its own samples, background's included; they carry no gradient.
    """
    return softmax_cross_entropy(logits + jnp.log(jax.lax.stop_gradient(mean_scores)), labels)


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
    bank: Float[Array, "k m d"], seen: Int[Array, " k"], samples: Samples, *, most: int = 512
) -> tuple[Float[Array, "k m d"], Int[Array, " k"]]:
    """Put the first `most` foreground samples of the global batch into the rings of their classes, in order.

    Args:
      bank, seen: of the state.
      samples: of this device; every device stores those of all.
      most: static number of features that one step can store.
    """
    classes, size, width = bank.shape
    positive = samples.foreground(classes)
    counts = samples.gather(positive.sum()[None])
    before = jnp.where(jnp.arange(len(counts)) < samples.device[0], counts, 0).sum()
    rank = jnp.where(positive, before + jnp.cumsum(positive) - 1, most)  # ranks from `most` on are dropped
    features = samples.features.astype(bank.dtype)
    everyone = samples.sum(jnp.zeros((most, width)).at[rank].set(features, mode="drop"))
    label = samples.sum(jnp.zeros(most, jnp.int32).at[rank].set(samples.labels + 1, mode="drop")) - 1  # -1: nothing
    is_class = (label[:, None] == jnp.arange(classes)[None]).astype(jnp.int32)
    earlier = ((jnp.cumsum(is_class, 0) - is_class) * is_class).sum(-1)
    total = is_class.sum(0)
    kept = (label >= 0) & (earlier >= total[label] - size)  # of more than the ring holds, the last
    slot = jnp.where(kept, (seen[label] + earlier) % size, size)
    return bank.at[label, slot].set(everyone, mode="drop"), seen + total


def class_scores(logits: Float[Array, "n c"], samples: Samples) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Sum over all devices of the softmax scores that positives give their own class, and their number: [K] each."""
    own = jnp.take_along_axis(jax.nn.softmax(logits, -1), samples.labels[:, None], 1)[:, 0]
    return samples.class_sums(own, logits.shape[1] - 1)


def loce(
    size: Count = 80, drawn_classes: Count = 8, drawn_entries: Count = 4, momentum: Share = 0.9, seed: int = 0
) -> Classification:
    """Equilibrium loss, and remembered features of classes with low mean scores.

    A step adds `drawn_classes` x `drawn_entries` remembered samples to the whole batch's, drawn by a key of (seed,
    step), the same on every device; the loss divides by all samples, remembered ones included. Each class gives its
    score one entry per step, the mean over its positives, and one more if it was drawn.
    """

    def loss(samples: Samples, head: Head, state):
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        drawn, drawn_labels, is_filled = draw_entries(state, key, classes=drawn_classes, entries=drawn_entries)
        logits, more = head.linear(samples.features), head.linear(drawn)
        own = equilibrium_loss(logits, samples.labels, state["score"])
        added = equilibrium_loss(more, drawn_labels, state["score"])
        added = jnp.where(is_filled, added, 0.0).sum()
        count = samples.count
        per_sample = (own + added / count) * count / (count + is_filled.sum())

        # Every device has all remembered samples: each scores its share of them.
        device, devices = samples.device
        is_share = is_filled & (jnp.arange(len(drawn_labels)) % devices == device)
        remembered = Samples(drawn, drawn_labels, is_share.astype(jnp.float32), samples.axis_name)
        logits, more, samples = jax.lax.stop_gradient((logits, more, samples))
        own_sum, own_count = class_scores(logits, samples)
        more_sum, more_count = class_scores(more, remembered)
        sums = own_sum / jnp.maximum(own_count, 1.0) + more_sum / jnp.maximum(more_count, 1.0)
        entries = (own_count > 0).astype(jnp.float32) + (more_count > 0)
        bank, seen = remember(state["bank"], state["seen"], samples)
        score = updated_scores(state["score"], sums, entries, momentum=momentum)
        return per_sample, {"score": score, "bank": bank, "seen": seen, "step": state["step"] + 1}

    def init_state(num_classes, width):
        return first_state(num_classes, width, size=size)

    return Classification("linear", loss, init_state=init_state)
