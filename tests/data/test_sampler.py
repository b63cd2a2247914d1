"""Which image in which step."""

import json
from pathlib import Path

import numpy as np
import pytest

from c2am_jax.data.builder import PreparedDataset
from c2am_jax.data.lvis import category_table
from c2am_jax.data.sampler import (
    Augmentation,
    category_repeat_factors,
    epoch_steps,
    evaluation_steps,
    fitting_bucket,
    repeat_factors,
    steps_per_epoch,
    target_size,
)

BUCKETS = ((64, 96), (96, 64), (96, 128), (128, 96))
AUGMENTATION = Augmentation((48, 64, 80), 120, 0.5, BUCKETS)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 60)
    categories = category_table([{"id": i + 1, "image_count": 5} for i in range(10)])
    hw = np.where(rng.random(60)[:, None] < 0.6, (60, 80), (80, 60)).astype(np.int32)
    return PreparedDataset(
        name="fake",
        folder=Path("fake"),
        categories=categories,
        image_id=np.arange(100, 160),
        image_hw=hw,
        label=np.minimum(rng.geometric(0.4, counts.sum()) - 1, 9).astype(np.int32),
        label_offset=np.concatenate([[0], np.cumsum(counts)]),
    )


def steps(dataset, epoch=0, seed=0, sampler="random", batch_size=8):
    options = {"sampler": sampler, "threshold": 0.3, "augmentation": AUGMENTATION, "batch_size": batch_size}
    return epoch_steps(dataset, seed=seed, epoch=epoch, **options)


def test_an_epoch_shows_every_annotated_image_and_no_other(dataset):
    shown = np.concatenate([s.index for s in steps(dataset)])
    annotated = np.flatnonzero(np.diff(dataset.label_offset) > 0)
    np.testing.assert_array_equal(np.unique(shown), annotated)
    assert len(shown) - len(annotated) < 8 * len(BUCKETS)


def test_every_batch_has_one_padded_shape_that_holds_all_its_images(dataset):
    for step in steps(dataset):
        assert step.bucket in BUCKETS and (step.target_hw <= step.bucket).all() and len(step.index) == 8


def test_the_order_is_a_function_of_seed_and_epoch(dataset):
    first, again = steps(dataset), steps(dataset)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.index, b.index)
        np.testing.assert_array_equal(a.target_hw, b.target_hw)
        np.testing.assert_array_equal(a.flip, b.flip)
    others = steps(dataset, epoch=1), steps(dataset, seed=1)
    for other in others:
        assert any((a.index != b.index).any() for a, b in zip(first, other, strict=False))


def test_sizes_and_flips_vary(dataset):
    batches = steps(dataset)
    shorts = {int(v) for s in batches for v in s.target_hw.min(1)}
    assert shorts == {48, 64, 80}
    assert 0.2 < np.mean([s.flip.mean() for s in batches]) < 0.8


def test_repeat_factors_follow_the_rarest_class_of_an_image():
    label, offset = np.array([0, 0, 1, 0, 2]), np.array([0, 1, 3, 5, 5])
    factors = repeat_factors(label, offset, 3, threshold=0.5)
    rare = np.sqrt(0.5 / (1 / 3))
    np.testing.assert_allclose(factors, [1, rare, rare, 1])


def test_repetition_rounds_up_or_at_random(dataset):
    factors = repeat_factors(dataset.label, dataset.label_offset, 10, threshold=0.3)
    kept = np.diff(dataset.label_offset) > 0
    up = np.concatenate([s.index for s in steps(dataset, sampler="repeat_factor", batch_size=1)])
    np.testing.assert_array_equal(np.bincount(up, minlength=60)[kept], np.ceil(factors[kept]))
    seen = np.zeros(60)
    for epoch in range(200):
        order = steps(dataset, epoch=epoch, sampler="repeat_factor_stochastic", batch_size=1)
        seen += np.bincount(np.concatenate([s.index for s in order]), minlength=60)
    np.testing.assert_allclose(seen[kept] / 200, factors[kept], atol=0.15)


def test_nominal_epoch_length(dataset):
    annotated = (np.diff(dataset.label_offset) > 0).sum()
    assert steps_per_epoch(dataset, sampler="random", threshold=0.3, batch_size=8) == -(-annotated // 8)


def test_unknown_sampler_lists_the_known_ones(dataset):
    with pytest.raises(ValueError, match="random, repeat_factor"):
        steps(dataset, sampler="class_aware")


def test_resizing_keeps_the_ratio_under_both_limits():
    np.testing.assert_array_equal(target_size(np.array([427, 640]), 800, 1333), [800, 1199])
    np.testing.assert_array_equal(target_size(np.array([300, 640]), 800, 1333), [625, 1333])
    np.testing.assert_array_equal(target_size(np.array([[640, 480]]), np.array([640]), 1333), [[853, 640]])


def test_an_image_that_fits_no_bucket_names_the_settings():
    with pytest.raises(ValueError, match="data.buckets"):
        fitting_bucket(np.array([[200, 200]]), BUCKETS)


def test_evaluation_shows_every_image_once(dataset):
    found = evaluation_steps(dataset, short_side=64, max_side=120, buckets=BUCKETS, batch_size=7)
    shown = np.concatenate([s.index for s in found])
    np.testing.assert_array_equal(np.sort(shown[shown >= 0]), np.arange(60))
    assert not any(s.flip.any() for s in found) and {len(s.index) for s in found} == {7}


@pytest.mark.parametrize(
    ("table", "images", "largest", "above_one"), [("v1", 99_388, 9.97, 796), ("v0.5", 56_740, 7.53, 829)]
)
def test_published_repeat_factors(shared, table, images, largest, above_one):
    rows = json.loads((shared / "data" / "lvis_tables" / f"lvis_{table}_train_cat_info.json").read_text())
    counts = category_table(rows).image_count
    factors = category_repeat_factors(counts / images, threshold=1e-3)
    assert factors.max() == pytest.approx(largest, abs=0.005) and (factors > 1).sum() == above_one
