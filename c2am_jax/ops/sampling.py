"""Random choice of a fixed number of priors, a bounded share of them positive."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Int

from c2am_jax.ops.matching import NEGATIVE, POSITIVE


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Chosen priors, positives first: `index` [S], `positive` [S], `valid` [S] (False: nothing left to choose)."""

    index: jax.Array
    positive: jax.Array
    valid: jax.Array


def sample(key: jax.Array | None, kind: Int[Array, "n"], *, num: int, positive_fraction: float) -> Samples:
    """Choose `num` priors without replacement: at most ``int(num * positive_fraction)`` positives, then negatives.

    Args:
      key: PRNG key for a uniform choice; None takes the first candidates by index (the golden files' rule).
      kind: 1 positive, 0 negative, -1 never chosen.
      num: how many to choose.
      positive_fraction: bound on the share of positives.
    """
    num_positive = int(num * positive_fraction)
    if key is None:
        # Descending in the index, exact in float32 up to 2**24 priors.
        rank = jnp.arange(kind.shape[0], 0, -1, dtype=jnp.float32)
    else:
        rank = jax.random.uniform(key, kind.shape, minval=0.5, maxval=1.0)

    def choose(candidates: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        value, index = jax.lax.top_k(jnp.where(candidates, rank, 0.0), min(count, kind.shape[0]))
        return index.astype(jnp.int32), value > 0

    positive_index, positive_valid = choose(kind == POSITIVE, num_positive)
    negative_index, negative_valid = choose(kind == NEGATIVE, num)
    taken = positive_valid.sum()
    negative_valid &= jnp.arange(negative_valid.shape[0]) < num - taken

    index = jnp.concatenate([positive_index, negative_index])
    valid = jnp.concatenate([positive_valid, negative_valid])
    positive = jnp.concatenate([positive_valid, jnp.zeros_like(negative_valid)])
    # Both parts are prefix-valid, so a stable sort closes the gap between them.
    order = jnp.argsort(~valid, stable=True)[:num]
    if order.shape[0] < num:
        order = jnp.pad(order, (0, num - order.shape[0]), constant_values=index.shape[0])
    pad = lambda x, value: jnp.take(x, order, mode="fill", fill_value=value)  # noqa: E731
    return Samples(jnp.where(pad(valid, False), pad(index, 0), 0), pad(positive, False), pad(valid, False))
