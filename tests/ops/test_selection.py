"""The first and the largest by counting, as TPUs find them: the same as by sorting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops.selection import LANES, first_true, first_true_by_counting, largest, largest_by_counting

SIZES = (5, LANES, LANES + 1, 20_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", [first_true, first_true_by_counting])
@pytest.mark.parametrize("count", [1, 300])
def test_the_first_true_ones_ascend_and_the_rest_is_the_length(way, size, count):
    find = jax.jit(functools.partial(way, count=count))
    for share in (0, 0.001, 0.3, 1):
        mask = np.random.default_rng(size).random(size) < share
        index, total = find(jnp.asarray(mask))
        expected = np.flatnonzero(mask)[:count]
        np.testing.assert_array_equal(index, np.pad(expected, (0, count - len(expected)), constant_values=size))
        assert total == mask.sum()


def hard_values(rng, size):
    few = np.where(rng.random(size) < 0.999, -np.inf, rng.random(size))
    zeros = np.where(rng.random(size) < 0.5, 0.0, -0.0)
    return {
        "normal": rng.standard_normal(size),
        "ties": rng.integers(-3, 4, size),
        "few": few,
        "zeros": zeros,
        "negative": -rng.random(size),
        "nan": np.where(rng.random(size) < 0.01, np.nan, rng.random(size)),
        "tiny": rng.random(size) * 1e-42,
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", [largest, largest_by_counting])
@pytest.mark.parametrize("most", [8, 250])
def test_the_largest_are_those_of_top_k_in_its_order(way, size, most):
    count = min(size, most)
    find, sort = jax.jit(functools.partial(way, count=count)), jax.jit(lambda values: jax.lax.top_k(values, count))
    for values in hard_values(np.random.default_rng(size), size).values():
        values = jnp.asarray(values, jnp.float32)
        for ours, expected in zip(find(values), sort(values), strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_images_are_independent_under_vmap():
    values = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2000)), jnp.float32)
    found = jax.vmap(functools.partial(largest_by_counting, count=50))(values)
    for ours, expected in zip(found, jax.lax.top_k(values, 50), strict=True):
        np.testing.assert_array_equal(ours, expected)
