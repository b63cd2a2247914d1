"""The first and the largest by counting, as TPUs find them: the same as by sorting."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops import selection
from c2am_jax.ops.selection import (
    LANES,
    first_true,
    first_true_by_counting,
    first_true_by_sorting,
    largest_by_counting,
    largest_by_sorting,
    rows_of_each,
    rows_of_joined,
    rows_of_parts,
    spread_by_adding,
    spread_by_product,
)

SIZES = (5, LANES, LANES + 1, 20_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", [first_true, first_true_by_counting, first_true_by_sorting])
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
        "tiny": rng.random(size) * 1e-42,
    }


@pytest.mark.parametrize("way", [largest_by_counting, largest_by_sorting])
@pytest.mark.parametrize("count", [8, 250])
@pytest.mark.parametrize("starts", [(0, 5), (0, LANES + 1), (0, 900), (0, 700, 705, 1100), (0, 3, 520, 1500)])
def test_the_largest_of_each_part_are_those_of_top_k_in_its_order(way, starts, count, monkeypatch):
    monkeypatch.setattr(selection, "MOST_SORTED", 0)
    find = jax.jit(functools.partial(way, starts=starts, count=count))
    for values in hard_values(np.random.default_rng(0), starts[-1]).values():
        values = values.astype(np.float32)
        found, index = find(jnp.asarray(values))
        for part, (first, end) in enumerate(itertools.pairwise(starts)):
            most = min(count, end - first)
            top, place = jax.lax.top_k(jnp.asarray(values[first:end]), most)
            np.testing.assert_array_equal(found[part, :most], top)
            np.testing.assert_array_equal(index[part, :most], first + place)
            np.testing.assert_array_equal(found[part, most:], -np.inf)


def test_images_are_independent_under_vmap(monkeypatch):
    monkeypatch.setattr(selection, "MOST_SORTED", 0)
    values = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2000)), jnp.float32)
    found = jax.jit(jax.vmap(functools.partial(largest_by_counting, starts=(0, 2000), count=50)))(values)
    for ours, expected in zip(found, jax.lax.top_k(values, 50), strict=True):
        np.testing.assert_array_equal(ours[:, 0], expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_parts_and_their_gradients_are_those_of_one_array(dtype):
    rng = np.random.default_rng(0)
    parts = [jnp.asarray(rng.integers(-8, 9, (2, length, 3)), dtype) for length in (40, 10, 3)]
    index = jnp.asarray(rng.integers(0, 53, (2, 30)))  # some more than once
    rows = jnp.asarray(rng.integers(-8, 9, (2, 30, 3)), dtype)
    joined, back = jax.vjp(lambda parts: jnp.take_along_axis(jnp.concatenate(parts, 1), index[..., None], 1), parts)
    for way in (rows_of_each, rows_of_joined):
        np.testing.assert_array_equal(way(parts, index), joined)
    expected = back(rows)[0]
    found = jax.vjp(lambda parts: rows_of_parts(parts, index), parts)[1](rows)[0]
    starts = (0, 40, 50, 53)
    for ours in (found, spread_by_adding(index, rows, starts), spread_by_product(index, rows, starts)):
        for own, other in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(own, other)
