"""Which image in which step."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest

from c2am_jax.data.lvis import category_table
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.sampler import (
    Augmentation,
    Sampler,
    category_repeat_factors,
    epoch_steps,
    evaluation_steps,
    fitting_bucket,
    held_out_images,
    image_repeat_factors,
    jitter,
    reduced,
    repeat_factors,
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


def steps(dataset, epoch=0, seed=0, sampler="random", batch_size=8, augmentation=AUGMENTATION):
    chosen = Sampler(dataset, sampler, threshold=0.3)
    return epoch_steps(dataset, chosen, augmentation, seed=seed, epoch=epoch, batch_size=batch_size)


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
        np.testing.assert_array_equal(a.key, b.key)
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
    annotated = np.diff(dataset.label_offset) > 0
    factors = repeat_factors(dataset.label, dataset.label_offset, 10, threshold=0.3)[annotated]
    lengths = {
        "random": annotated.sum(),
        "class_aware": annotated.sum(),
        "repeat_factor": np.ceil(factors).sum(),
        "repeat_factor_stochastic": round(factors.sum()),
    }
    for name, length in lengths.items():
        assert Sampler(dataset, name, threshold=0.3).nominal_length() == length
        if name != "repeat_factor_stochastic":
            assert len(Sampler(dataset, name, threshold=0.3).occurrences(0, 0)) == length


def test_class_aware_turns_pass_over_classes_and_over_the_images_of_each(dataset):
    sampler = Sampler(dataset, "class_aware")
    counts = np.diff(dataset.label_offset)
    image = np.repeat(np.arange(60), counts)
    images_of = {int(c): set(image[dataset.label == c].tolist()) for c in np.unique(dataset.label)}
    turns = np.concatenate([sampler.occurrences(5, epoch) for epoch in range(40)])
    assert (turns != np.concatenate([sampler.occurrences(6, epoch) for epoch in range(40)])).any()
    passes = turns[: len(turns) // len(images_of) * len(images_of)].reshape(-1, len(images_of))
    for shown in passes:  # one image of every class: a system of distinct representatives exists
        assert _matching(shown.tolist(), images_of) == len(images_of)
    # A class with a single image shows it once a pass; every image of a class comes before one comes again.
    for images in images_of.values():
        if len(images) == 1:
            assert all(np.isin(list(images), shown).all() for shown in passes)
        appearances = np.bincount(turns, minlength=60)[list(images)]
        assert appearances.min() >= len(passes) // len(images)


def _matching(shown, images_of):
    """How many classes can be given one of the shown images each (augmenting paths)."""
    owner = {}

    def give(category, tried):
        for place, image in enumerate(shown):
            if image in images_of[category] and place not in tried:
                tried.add(place)
                if place not in owner or give(owner[place], tried):
                    owner[place] = category
                    return True
        return False

    return sum(give(category, set()) for category in images_of)


def test_held_out_images_never_train_and_leave_every_class_two(dataset):
    held_out = held_out_images(dataset, 0.2)
    sampler = Sampler(dataset, "random", held_out=0.2)
    everyone = Sampler(dataset, "random").images
    assert 5 <= len(held_out) <= round(0.2 * len(everyone)) and not np.intersect1d(held_out, sampler.images).size
    np.testing.assert_array_equal(np.union1d(held_out, sampler.images), everyone)
    np.testing.assert_array_equal(held_out, held_out_images(dataset, 0.2))
    for label in range(10):
        before, left = (sum(label in dataset.labels_of(i) for i in images) for images in (everyone, sampler.images))
        assert left >= min(2, before)
    batches = evaluation_steps(dataset, short_side=64, max_side=120, buckets=BUCKETS, batch_size=4, images=held_out)
    shown = np.concatenate([step.index for step in batches])
    np.testing.assert_array_equal(np.sort(shown[shown >= 0]), held_out)


def test_class_aware_epochs_join_without_a_seam(dataset):
    """Epochs of other lengths cut the same endless row elsewhere."""
    sampler = Sampler(dataset, "class_aware")
    row = np.concatenate([sampler.occurrences(1, epoch) for epoch in range(6)])
    sampler.images = sampler.images[: len(sampler.images) // 2]
    other = np.concatenate([sampler.occurrences(1, epoch) for epoch in range(6)])
    np.testing.assert_array_equal(row[: len(other)], other)


def test_other_draws_leave_the_order_alone(dataset):
    """Scale jitter changes sizes, not which image is shown how often, nor mirrored."""
    jittered = dataclasses.replace(AUGMENTATION, scale_jitter=(0.2, 2.0))
    plain, moved = (
        np.concatenate([np.stack([s.index, s.flip, s.key], 1) for s in steps(dataset, batch_size=1, augmentation=a)])
        for a in (AUGMENTATION, jittered)
    )
    np.testing.assert_array_equal(plain[np.argsort(plain[:, 2])], moved[np.argsort(moved[:, 2])])
    assert len(np.unique(plain[:, 2])) == len(plain)


def test_jittered_windows_lie_in_their_images_and_results_in_their_bucket(dataset):
    jittered = dataclasses.replace(AUGMENTATION, scale_jitter=(0.1, 3.0))
    found = steps(dataset, augmentation=jittered)
    for step in found:
        hw = dataset.image_hw[step.index]
        assert (step.window[:, :2] >= 0).all() and (step.window[:, 2:] >= 1).all()
        assert (step.window[:, :2] + step.window[:, 2:] <= hw).all()
        assert (step.target_hw >= 1).all() and (step.target_hw <= step.bucket).all()
    scale = np.concatenate([(s.target_hw / s.window[:, 2:])[:, 0] for s in found])
    assert scale.min() < 0.4 and scale.max() > 2
    assert any((s.window[:, 2:] < dataset.image_hw[s.index]).any() for s in found)


def test_jitter_cuts_what_the_scale_makes_too_large():
    hw = np.array([[60, 80], [60, 80], [60, 80]])
    window, target = jitter(
        hw, np.array([[96, 128]] * 3), np.array([[96, 128]] * 3), np.array([0.5, 1.0, 2.0]), np.array([[0.99, 0.0]] * 3)
    )
    np.testing.assert_array_equal(target, [[48, 64], [96, 128], [96, 128]])
    np.testing.assert_array_equal(window, [[0, 0, 60, 80], [0, 0, 60, 80], [30, 0, 30, 40]])


def test_repeat_factors_of_the_reference_vector(shared):
    vectors = json.loads((shared / "reference" / "longtail_vectors.json").read_text())["vectors"]
    vector = next(v for v in vectors if v["id"] == "rfs")
    images, expected = vector["inputs"]["images"], vector["expected"]
    category = category_repeat_factors(np.array(expected["category_freq"]), threshold=vector["params"]["t"])
    np.testing.assert_allclose(category, expected["category_repeat"], rtol=1e-12)
    offset = np.concatenate([[0], np.cumsum([len(labels) for labels in images])])
    factors = image_repeat_factors(np.concatenate(images).astype(int), offset, category)
    np.testing.assert_allclose(factors, expected["image_repeat"], rtol=1e-12)
    np.testing.assert_array_equal(np.ceil(factors), expected["ceil_lengths"])


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


PUBLISHED = {
    "v1": {
        "classes": 1203,
        "groups": (337, 461, 405),
        "instances": 1_270_141,
        "instance_range": (1, 50_552),
        "image_range": (1, 1977),
        "annotated_images": 99_388,
        "largest_factor": 9.97,
        "factors_above_one": 796,
    },
    "v0.5": {
        "classes": 1230,
        "groups": (454, 461, 315),
        "instances": 693_958,
        "instance_range": (1, 26_148),
        "image_range": (1, 1145),
        "annotated_images": 56_740,
        "largest_factor": 7.53,
        "factors_above_one": 829,
    },
}


@pytest.mark.parametrize("version", PUBLISHED)
def test_facts_of_the_published_category_tables(shared, version):
    rows = json.loads((shared / "data" / "lvis_tables" / f"lvis_{version}_train_cat_info.json").read_text())
    table, fact = category_table(rows), PUBLISHED[version]
    np.testing.assert_array_equal(table.ids, np.arange(1, fact["classes"] + 1))
    assert tuple(len(table.group(letter)) for letter in "rcf") == fact["groups"]
    # Groups follow from the image counts: rare up to 10, common up to 100.
    plain = [{key: row[key] for key in ("id", "name", "image_count", "instance_count")} for row in rows]
    assert category_table(plain).frequency == table.frequency
    assert table.instance_count.sum() == fact["instances"]
    assert (table.instance_count.min(), table.instance_count.max()) == fact["instance_range"]
    assert (table.image_count.min(), table.image_count.max()) == fact["image_range"]
    factors = category_repeat_factors(table.image_count / fact["annotated_images"], threshold=1e-3)
    assert factors.max() == pytest.approx(fact["largest_factor"], abs=0.005)
    assert (factors > 1).sum() == fact["factors_above_one"]


def test_an_epoch_of_lvis_size_is_ordered_in_a_moment():
    """100,170 images and 1.27 million instances; the bound leaves room for a loaded machine."""
    rng, images, instances, classes = np.random.default_rng(0), 100_170, 1_270_141, 1203
    share = 1 / (np.arange(classes) + 3.0) ** 1.5
    label = rng.choice(classes, instances, p=share / share.sum()).astype(np.int32)
    dataset = PreparedDataset(
        name="large",
        folder=Path("large"),
        categories=category_table([{"id": i + 1, "image_count": 5} for i in range(classes)]),
        image_id=np.arange(images),
        image_hw=np.where(rng.random(images)[:, None] < 0.7, (480, 640), (640, 480)).astype(np.int32),
        label=label,
        label_offset=np.concatenate(
            [[0], np.cumsum(np.bincount(rng.integers(0, images, instances), minlength=images))]
        ),
    )
    buckets = ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
    augmentation = Augmentation((640, 672, 704, 736, 768, 800), 1333, 0.5, buckets)
    for name in ("repeat_factor", "class_aware"):
        sampler = Sampler(dataset, name)
        taken = []
        for _ in range(3):  # what else runs on the machine only adds to a time
            began = time.process_time()
            assert len(epoch_steps(dataset, sampler, augmentation, seed=0, epoch=7, batch_size=16)) >= images // 16
            taken.append(time.process_time() - began)
        assert min(taken) < 1


def test_pictures_lose_resolution_where_canvas_is_smaller_than_what_they_are_resized_to():
    hw = np.array([[480, 640], [1000, 750], [3000, 4000], [900, 300]])
    # Resized to a short side of 800 and at most 1333: long sides 1067, 1067, 1067 and 1333, of which the pictures
    # themselves hold 640, 1000, 1067 and 900.
    assert reduced(hw, 640, 800, 1333) == (3, 1067)
    assert reduced(hw, 1000, 800, 1333) == (1, 1067)
    assert reduced(hw, 1067, 800, 1333) == (0, 1067)
    assert reduced(hw, 128, 64, 128) == (0, 128)  # larger than the canvas, but the network sees no more than it holds
    assert reduced(hw[:0], 640, 800, 1333) == (0, 640)
