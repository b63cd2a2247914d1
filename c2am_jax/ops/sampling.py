"""Random choice of a fixed number of priors, a bounded share of them positive."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Int

from c2am_jax.ops.matching import NEGATIVE, POSITIVE
from c2am_jax.ops.selection import largest


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Chosen:
    """Chosen priors, positives first, then negatives, then padding.

    Attributes:
      index: int32 [S]; 0 where not valid.
      positive: bool [S].
      valid: bool [S]; False where nothing was left to choose.
    """

    index: jax.Array
    positive: jax.Array
    valid: jax.Array


def sample(key: jax.Array | None, kind: Int[Array, " n"], *, num: int, positive_fraction: float) -> Chosen:
    """Choose `num` priors without replacement.

    At most ``int(num * positive_fraction)`` are positives; negatives fill up, as far as there are any.

    Args:
      key: PRNG key for a uniform choice; None takes the first candidates by index (the golden files' rule).
      kind: 1 positive, 0 negative, -1 never chosen.
      num: how many to choose.
      positive_fraction: bound on the share of positives.

    Returns:
      S = `num` rows; with key None, indices ascend within the positives and within the negatives.
    """
    num_positive = int(num * positive_fraction)
    if key is None:
        # Descending in the index, exact in float32 up to 2**24 priors.
        rank = jnp.arange(kind.shape[0], 0, -1, dtype=jnp.float32)
    else:
        rank = jax.random.uniform(key, kind.shape, minval=0.5, maxval=1.0)

    def choose(candidates: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """Indices of the chosen, padded to `num`, and how many there are."""
        value, index = largest(jnp.where(candidates, rank, 0.0), min(count, kind.shape[0]))
        return jnp.pad(index, (0, num - index.shape[0])).astype(jnp.int32), (value > 0).sum()

    positive_index, positives = choose(kind == POSITIVE, num_positive)
    negative_index, negatives = choose(kind == NEGATIVE, num)
    slot = jnp.arange(num)
    positive = slot < positives
    valid = slot < positives + negatives
    index = jnp.where(positive, positive_index, negative_index[jnp.maximum(slot - positives, 0)])
    return Chosen(jnp.where(valid, index, 0), positive, valid)
