"""Weights of an axis' cells in the bins of RoIAlign."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sampling_matrix(
    low: Float[Array, "*n"],
    high: Float[Array, "*n"],
    size: Int[Array, "*n"] | int,
    *,
    out: int,
    cells: int,
    origin: Int[Array, "*n"] | int = 0,
) -> Float[Array, "*n out cells"]:
    """Weights of each cell in each of `out` bins along one axis; no gradient flows through it.

    The average of the ceil(length / out) samples of a bin, each a linear interpolation: samples before -1
    or behind `size` count as 0, the others are clamped to [0, size - 1] (reference rule). The samples of a
    bin are evenly spaced, so the ones that reach a cell are two runs of consecutive numbers, one on either
    side of it, and each run's weights sum to its length times its mean weight: no loop over samples,
    however many there are.

    Args:
      low: where the RoI begins, in cells (cell i is centred on i).
      high: where it ends; not behind `low` gives zero weights.
      size: how many cells exist; the columns behind them are zero.
      out: bins.
      cells: columns of the result.
      origin: number of the cell that the first column stands for.
    """
    low, high = jax.lax.stop_gradient((low, high))
    bin_length = (high - low) / out
    count = jnp.maximum(jnp.ceil(bin_length), 0)[..., None]
    divisor = jnp.maximum(count, 1)
    step = jnp.where(count > 0, bin_length[..., None] / divisor, 1)
    start = low[..., None] + jnp.arange(out, dtype=low.dtype) * bin_length[..., None]
    size = jnp.broadcast_to(jnp.asarray(size, low.dtype), low.shape)[..., None]

    def first_sample(reached, x):
        """Number of the first sample that has `reached` x; the division alone may round wrongly."""
        guess = jnp.ceil((x - start) / step - 0.5)
        return guess - 1 + sum(~reached(start + (guess + k + 0.5) * step) for k in (-1, 0, 1))

    begin = jnp.clip(first_sample(lambda at: at >= -1, -1), 0, count)[..., None]
    end = jnp.clip(first_sample(lambda at: at > size, size), 0, count)[..., None]
    start, step, last = start[..., None], step[..., None], size[..., None] - 1
    origin = jnp.broadcast_to(jnp.asarray(origin, low.dtype), low.shape)[..., None, None]
    grid = origin + jnp.arange(-1, cells + 1, dtype=low.dtype)
    # Samples [first[i], first[i + 1]) lie between the cells i - 1 and i. A sample on a cell counted to the
    # wrong side changes nothing: its weight is the same from both sides.
    first = jnp.clip(jnp.ceil((grid - start) / step - 0.5), begin, end)
    first = jnp.where(grid < 0, begin, jnp.where(grid > last, end, first))
    before, here, behind = first[..., :-2], first[..., 1:-1], first[..., 2:]
    grid = grid[..., 1:-1]

    def mean_distance(begin, end):
        return jnp.clip(jnp.abs(start - grid + step * (begin + end) / 2), 0, 1)

    left = (here - before) * jnp.where(grid == 0, 1, 1 - mean_distance(before, here))
    right = (behind - here) * jnp.where(grid == last, 1, 1 - mean_distance(here, behind))
    return jnp.where((grid >= 0) & (grid <= last), left + right, 0) / divisor[..., None]
