"""Sampling: exact counts, no duplicates, uniform, reproducible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops.matching import IGNORED, NEGATIVE, POSITIVE
from c2am_jax.ops.sampling import sample


def kinds(positives: int, negatives: int, ignored: int, seed: int = 0) -> np.ndarray:
    values = np.repeat([POSITIVE, NEGATIVE, IGNORED], [positives, negatives, ignored])
    return np.random.default_rng(seed).permutation(values).astype(np.int32)


@pytest.mark.parametrize("key", [None, 0], ids=["first", "random"])
@pytest.mark.parametrize(
    ("positives", "negatives", "ignored", "expected"),
    [
        (20, 50, 5, (4, 12)),  # enough of both
        (2, 50, 5, (2, 14)),  # negatives fill up
        (20, 3, 5, (4, 3)),  # positives never do
        (0, 50, 0, (0, 16)),
        (20, 0, 0, (4, 0)),
        (2, 3, 60, (2, 3)),
        (0, 0, 9, (0, 0)),
        (3, 4, 0, (3, 4)),  # fewer priors than samples
    ],
)
def test_counts_are_exact(key, positives, negatives, ignored, expected):
    kind = kinds(positives, negatives, ignored)
    key = None if key is None else jax.random.key(key)
    samples = jax.jit(functools.partial(sample, num=16, positive_fraction=0.25))(key, jnp.asarray(kind))
    index, positive, valid = (np.asarray(x) for x in (samples.index, samples.positive, samples.valid))
    assert index.shape == positive.shape == valid.shape == (16,)
    assert (positive.sum(), (valid & ~positive).sum()) == expected
    # Positives, then negatives, then padding.
    np.testing.assert_array_equal(positive, np.arange(16) < expected[0])
    np.testing.assert_array_equal(valid, np.arange(16) < sum(expected))
    assert (kind[index[positive]] == POSITIVE).all()
    assert (kind[index[valid & ~positive]] == NEGATIVE).all()
    assert len(set(index[valid])) == valid.sum()
    np.testing.assert_array_equal(index[~valid], 0)
    if key is None:
        np.testing.assert_array_equal(index[positive], np.flatnonzero(kind == POSITIVE)[: expected[0]])
        np.testing.assert_array_equal(index[valid & ~positive], np.flatnonzero(kind == NEGATIVE)[: expected[1]])


def test_no_positives_are_wanted_at_fraction_zero():
    samples = sample(jax.random.key(0), jnp.asarray(kinds(5, 5, 0)), num=8, positive_fraction=0.0)
    assert samples.positive.sum() == 0 and samples.valid.sum() == 5


def test_every_candidate_is_equally_likely():
    kind = kinds(8, 24, 4)
    draws = 4000
    keys = jax.random.split(jax.random.key(1), draws)
    draw = jax.jit(jax.vmap(functools.partial(sample, num=12, positive_fraction=1 / 3), in_axes=(0, None)))
    samples = draw(keys, jnp.asarray(kind))
    assert samples.valid.all()
    share = np.bincount(np.asarray(samples.index).reshape(-1), minlength=len(kind)) / draws
    # 4 of 8 positives and 8 of 24 negatives; five standard deviations of a binomial share.
    np.testing.assert_allclose(share[kind == POSITIVE], 1 / 2, atol=5 * (0.25 / draws) ** 0.5)
    np.testing.assert_allclose(share[kind == NEGATIVE], 1 / 3, atol=5 * (2 / 9 / draws) ** 0.5)
    np.testing.assert_array_equal(share[kind == IGNORED], 0)


def test_pairs_are_drawn_independently():
    kind = jnp.full((6,), NEGATIVE)
    keys = jax.random.split(jax.random.key(2), 6000)
    samples = jax.jit(jax.vmap(lambda key: sample(key, kind, num=2, positive_fraction=0.0)))(keys)
    pairs = np.sort(np.asarray(samples.index), 1)
    counts = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36).reshape(6, 6)
    # Each of the 15 pairs 400 times.
    np.testing.assert_allclose(counts[np.triu_indices(6, 1)], 400, atol=5 * 400**0.5)


def test_the_key_decides():
    kind = jnp.asarray(kinds(30, 200, 10))
    draw = functools.partial(sample, kind=kind, num=32, positive_fraction=0.5)
    first, again, other = (draw(jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.index, again.index)
    assert (np.asarray(first.index) != np.asarray(other.index)).any()
