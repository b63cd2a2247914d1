"""The first or the largest of many values, with static shapes and without a long sort.

A TPU sorts by comparing in log^2 rounds and gathers single numbers slowly. What is chosen here is found by counting;
rows of it are fetched by products with matrices of 0 and 1, which are exact.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LANES = 512  # of a row, in which long arrays are laid out


def first_true(mask: Bool[Array, " n"], count: int) -> tuple[Int[Array, " {count}"], Int[Array, ""]]:
    """Indices of the first True.

    Args:
      mask: n booleans.
      count: how many to find.

    Returns:
      ascending indices, int32, n where there are fewer than `count`; and how many True there are in all.
    """
    return jax.lax.platform_dependent(
        mask,
        tpu=lambda mask: first_true_by_counting(mask, count),
        default=lambda mask: (jnp.nonzero(mask, size=count, fill_value=len(mask))[0].astype(jnp.int32), _total(mask)),
    )


def _total(mask: jax.Array) -> jax.Array:
    return mask.sum(dtype=jnp.int32)


def first_true_by_counting(mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`first_true` on any platform, by the way for TPUs."""
    length = mask.shape[0]
    rows = -(-length // LANES)
    table = jnp.pad(mask, (0, rows * LANES - length)).reshape(rows, LANES)
    ends = jnp.cumsum(table.sum(1, dtype=jnp.int32))
    slot = jnp.arange(count, dtype=jnp.int32)[:, None]
    before = ends[None] <= slot  # rows whose True all come before
    row = before.sum(1, dtype=jnp.int32)
    seen = jnp.where(before, ends[None], 0).max(1)
    own = jnp.matmul(_one_hot(row, rows), table.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
    place = jnp.matmul(own.astype(jnp.bfloat16), _not_behind(), preferred_element_type=jnp.float32)
    column = (place.astype(jnp.int32) <= slot - seen[:, None]).sum(1, dtype=jnp.int32)
    return jnp.minimum(jnp.where(row < rows, row * LANES + column, length), length), ends[-1]


def _one_hot(index: jax.Array, length: int) -> jax.Array:
    return (index[:, None] == jnp.arange(length)[None]).astype(jnp.bfloat16)


def _not_behind() -> jax.Array:
    """[LANES, LANES]: 1 where the row is not behind the column; a product with it is a running sum."""
    lane = jnp.arange(LANES)
    return (lane[:, None] <= lane[None]).astype(jnp.bfloat16)


def largest(values: Float[Array, " n"], count: int) -> tuple[Float[Array, " {count}"], Int[Array, " {count}"]]:
    """The `count` largest of n values and their indices, in order; of equal values the lower index first.

    What `jax.lax.top_k` gives, NaN behind no other value included. On a TPU only `count` values are sorted.
    """
    return jax.lax.platform_dependent(
        values,
        tpu=lambda values: largest_by_counting(values, count),
        default=lambda values: tuple(jax.lax.top_k(values, count)),
    )


def largest_by_counting(values: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`largest` on any platform, by the way for TPUs."""
    length = values.shape[0]
    if length <= 2 * count:
        return tuple(jax.lax.top_k(values, count))
    order = _ordered_bits(values)

    def settle(step, threshold):
        raised = threshold | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        return jnp.where((order >= raised).sum() >= count, raised, threshold)

    # The largest number that at least `count` values reach: the last of them.
    threshold = jax.lax.fori_loop(0, 32, settle, (order[0] & 0))
    above, known = first_true_by_counting(order > threshold, count)
    equal, _ = first_true_by_counting(order == threshold, count)
    slot = jnp.arange(count)
    index = jnp.where(slot < known, above, jnp.roll(equal, known))
    top, place = jax.lax.top_k(values[index], count)
    return top, index[place]


def _ordered_bits(values: jax.Array) -> jax.Array:
    """Unsigned integers in the order of float32 values."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))
