"""The first or the largest of many values, with static shapes and without a long sort.

A TPU sorts by comparing in log^2 rounds and gathers single numbers slowly. What is chosen here is found by counting;
rows of it are fetched by products with matrices of 0 and 1, which are exact.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.ops.platforms import by_platform
from c2am_jax.ops.varying import vary_like

LANES = 512  # of a row, in which long arrays are laid out
MOST_SORTED = 8192  # values that are sorted at once


def first_true(mask: Bool[Array, " n"], count: int) -> tuple[Int[Array, " {count}"], Int[Array, ""]]:
    """Indices of the first True.

    Args:
      mask: n booleans.
      count: how many to find.

    Returns:
      ascending indices, int32, n where there are fewer than `count`; and how many True there are in all.
    """
    return by_platform(
        mask,
        tpu=lambda mask: first_true_by_counting(mask, count),
        onnx=lambda mask: first_true_by_sorting(mask, count),
        default=lambda mask: (jnp.nonzero(mask, size=count, fill_value=len(mask))[0].astype(jnp.int32), _total(mask)),
    )


def first_true_by_sorting(mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`first_true` on any platform, without the scatter of `jnp.nonzero`."""
    length = len(mask)
    index = jnp.sort(jnp.where(mask, jnp.arange(length, dtype=jnp.int32), length))[:count]
    return jnp.pad(index, (0, count - len(index)), constant_values=length), _total(mask)


def _total(mask: jax.Array) -> jax.Array:
    return mask.sum(dtype=jnp.int32)


def first_true_by_counting(mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`first_true` on any platform, by the way for TPUs."""
    index = _nth_true(_rows(mask), jnp.arange(count, dtype=jnp.int32))
    return jnp.minimum(index, len(mask)), _total(mask)


def _rows(values: jax.Array) -> jax.Array:
    """[n] -> [rows, LANES], filled up with zeros."""
    return jnp.pad(values, (0, -len(values) % LANES)).reshape(-1, LANES)


def _nth_true(table: Bool[Array, "rows lanes"], rank: Int[Array, " k"]) -> Int[Array, " k"]:
    """Indices of the True with `rank` True before them, rows * lanes where there is none."""
    rows = table.shape[0]
    ends = jnp.cumsum(table.sum(1, dtype=jnp.int32))
    rank = rank[:, None]
    before = ends[None] <= rank  # rows whose True all come before
    row = before.sum(1, dtype=jnp.int32)
    seen = jnp.where(before, ends[None], 0).max(1)
    own = jnp.matmul(_one_hot(row, rows), table.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
    column = (_running_sum(own) <= rank - seen[:, None]).sum(1, dtype=jnp.int32)
    return jnp.where(row < rows, row * LANES + column, rows * LANES)


def _one_hot(index: jax.Array, length: int) -> jax.Array:
    return (index[:, None] == jnp.arange(length)[None]).astype(jnp.bfloat16)


def _running_sum(table: jax.Array) -> jax.Array:
    """Along rows [..., LANES] of 0 and 1, int32, as a product."""
    lane = jnp.arange(LANES)
    not_behind = (lane[:, None] <= lane[None]).astype(jnp.bfloat16)
    found = jnp.matmul(table.astype(jnp.bfloat16), not_behind, preferred_element_type=jnp.float32)
    return found.astype(jnp.int32)


def largest(values: Float[Array, " n"], count: int) -> tuple[Float[Array, " {count}"], Int[Array, " {count}"]]:
    """The `count` largest of n values and their indices, in order; of equal values the lower index first.

    What `jax.lax.top_k` gives. On a TPU only `count` values are sorted.
    """
    found, index = largest_of_parts(values, [0, values.shape[0]], count)
    return found[0], index[0]


def largest_of_parts(
    values: Float[Array, " n"], starts: Sequence[int], count: int
) -> tuple[Float[Array, "l {count}"], Int[Array, "l {count}"]]:
    """`largest` of each of L parts of the values, together.

    Args:
      values: no NaN.
      starts: where each part begins, and where the last one ends.
      count: how many of each part.

    Returns:
      the values, -inf where a part has fewer, and their indices among all n, 0 there.
    """
    parts = tuple(starts)
    return by_platform(
        values,
        tpu=lambda values: largest_by_counting(values, parts, count),
        default=lambda values: largest_by_sorting(values, parts, count),
    )


def largest_by_sorting(values: jax.Array, starts: Sequence[int], count: int) -> tuple[jax.Array, jax.Array]:
    """`largest_of_parts`, each part by `jax.lax.top_k`."""
    found = []
    for first, end in itertools.pairwise(starts):
        top, index = jax.lax.top_k(values[first:end], min(count, end - first))
        missing = (0, count - top.shape[0])
        found.append((jnp.pad(top, missing, constant_values=-jnp.inf), jnp.pad(first + index, missing)))
    top, index = zip(*found, strict=True)
    return jnp.stack(top), jnp.stack(index)


def largest_by_counting(values: jax.Array, starts: Sequence[int], count: int) -> tuple[jax.Array, jax.Array]:
    """`largest_of_parts` on any platform, by the way for TPUs."""
    if len(values) <= MOST_SORTED:
        return largest_by_sorting(values, starts, count)
    pairs = list(itertools.pairwise(starts))
    wanted = jnp.asarray([min(count, end - first) for first, end in pairs])
    order = _ordered_bits(values)
    parts = [_rows(order[first:end]) for first, end in pairs]

    def settle(step, last):
        """Four more bits: the largest of 16 numbers that as many values as wanted reach."""
        shift = (28 - 4 * step).astype(jnp.uint32)
        raised = last[:, None] | (jnp.arange(1, 16, dtype=jnp.uint32) << shift)
        reached = [(part[None] >= own[:, None, None]).sum((1, 2)) for part, own in zip(parts, raised, strict=True)]
        steps = (jnp.stack(reached) >= wanted[:, None]).sum(1).astype(jnp.uint32)
        return last | (steps << shift)

    # Of each part the last value that is wanted.
    last = jax.lax.fori_loop(0, 8, settle, jnp.zeros(len(pairs), jnp.uint32) + (order[0] & 0))
    chosen = jnp.concatenate([_reaching(*own) for own in zip(parts, last, wanted, strict=True)])
    slot = jnp.arange(count, dtype=jnp.int32)
    rank = (jnp.cumsum(wanted) - wanted)[:, None] + jnp.minimum(slot, wanted[:, None] - 1)
    index = _nth_true(chosen, rank.reshape(-1)).reshape(rank.shape)
    # Rows of a part are filled up, so that numbers in the table run ahead.
    begins = [sum(part.size for part in parts[:number]) for number in range(len(parts))]
    index += jnp.asarray([first - begin for (first, _), begin in zip(pairs, begins, strict=True)])[:, None]
    exists = slot < wanted[:, None]
    index = jnp.where(exists, index, 0)
    top, place = jax.lax.top_k(jnp.where(exists, values[index], -jnp.inf), count)
    return top, jnp.take_along_axis(index, place, 1)


def _reaching(table: jax.Array, last: jax.Array, wanted: jax.Array) -> jax.Array:
    """The values above `last`, and of those equal to it the first ones that make up the number wanted."""
    above, equal = table > last, table == last
    before = jnp.cumsum(equal.sum(1, dtype=jnp.int32)) - equal.sum(1, dtype=jnp.int32)
    return above | (equal & (before[:, None] + _running_sum(equal) <= wanted - above.sum(dtype=jnp.int32)))


def _ordered_bits(values: jax.Array) -> jax.Array:
    """Unsigned integers in the order of float32 values."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def rows_of_parts(parts: Sequence[Float[Array, "b _ c"]], index: Int[Array, "b k"]) -> Float[Array, "b k c"]:
    """Rows of arrays [B, N, C] that lie behind one another, by their number in all of them.

    A TPU reads every part, instead of joining them first. The gradient's way to a part is a product with a matrix of 0
    and 1 there.
    """
    starts = tuple(itertools.accumulate((part.shape[1] for part in parts), initial=0))
    return _rows_of(starts, list(parts), index)


def rows_of_joined(parts: Sequence[jax.Array], index: jax.Array) -> jax.Array:
    """`rows_of_parts` of one array."""
    return jnp.take_along_axis(jnp.concatenate(parts, 1), index[..., None], axis=1)


def rows_of_each(parts: Sequence[jax.Array], index: jax.Array) -> jax.Array:
    """`rows_of_parts` on any platform, by the way for TPUs."""
    found, first = None, 0
    for part in parts:
        own = index[..., None] - first
        rows = jnp.take_along_axis(part, jnp.clip(own, 0, part.shape[1] - 1), axis=1)
        found = rows if found is None else jnp.where(own >= 0, rows, found)
        first += part.shape[1]
    assert found is not None
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows_of(_: tuple[int, ...], parts: list[jax.Array], index: jax.Array) -> jax.Array:
    return by_platform(parts, index, tpu=rows_of_each, default=rows_of_joined)


def _spread(starts: tuple[int, ...], index: jax.Array, rows: jax.Array) -> tuple[list[jax.Array], None]:
    by_product, by_adding = (functools.partial(way, starts=starts) for way in (spread_by_product, spread_by_adding))
    return by_platform(index, rows, tpu=by_product, default=by_adding), None


_rows_of.defvjp(lambda starts, parts, index: (_rows_of(starts, parts, index), index), _spread)


def spread_by_adding(index: jax.Array, rows: jax.Array, starts: Sequence[int]) -> list[jax.Array]:
    """Sums of rows [B, K, C] at each place of the parts; `starts` as for `largest_of_parts`."""
    total = jnp.zeros((rows.shape[0], starts[-1], rows.shape[2]), rows.dtype)
    total = jax.vmap(lambda total, index, rows: total.at[index].add(rows))(vary_like(total, rows), index, rows)
    return [total[:, first:end] for first, end in itertools.pairwise(starts)]


def spread_by_product(index: jax.Array, rows: jax.Array, starts: Sequence[int]) -> list[jax.Array]:
    """`spread_by_adding` on any platform, by the way for TPUs."""
    found = []
    for first, end in itertools.pairwise(starts):
        here = (index[:, None] == jnp.arange(first, end)[:, None]).astype(rows.dtype)
        found.append(jnp.einsum("bnk,bkc->bnc", here, rows, preferred_element_type=jnp.float32).astype(rows.dtype))
    return found
