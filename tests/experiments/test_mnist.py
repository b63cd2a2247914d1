"""The MNIST experiment: its data, its groups, and that training learns."""

import gzip

import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.experiments import digits
from c2am_jax.experiments.mnist import Recipe, Result, Trainer, main, method, table
from c2am_jax.losses import Head, Samples, c2am_loss


def synthetic(size=8, each=60):
    """Digits that are a bright row or column each: easy, and no scikit-learn needed."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10), each).astype(np.int32)
    images = rng.uniform(0, 0.3, (len(labels), size, size, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        (image[label] if label < 5 else image[:, label - 5])[:] = 1
    return digits.Digits("synthetic", images, labels, images[:200], labels[:200], few=10)


def test_the_last_digit_has_margins_as_all_have():
    rng = np.random.default_rng(0)
    features, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 3), (3, 10)))
    kernel, labels = kernel.at[:, 9].multiply(50), jnp.full(4, 9)
    loss, _ = method("c2am", Recipe(alpha=0.5)).loss(Samples(features, labels, jnp.ones(4)), Head(kernel), {})
    np.testing.assert_allclose(loss, c2am_loss(features, kernel, labels, background="all"), rtol=1e-6)
    assert (np.asarray(c2am_loss(features, kernel, labels, background="foreground_only")) != loss).any()


def test_only_the_few_classes_are_cut():
    labels = synthetic().train_labels
    kept = labels[digits.imbalanced(labels, 10, np.random.default_rng(0))]
    assert np.bincount(kept).tolist() == [60] * 7 + [10] * 3


@pytest.mark.parametrize("name", ["softmax", "c2am"])
def test_training_learns_and_repeats(name):
    data, trainer = synthetic(), Trainer(name, Recipe(steps=60, batch_size=32), 8)
    first, second = trainer.run(data, True, 0), trainer.run(data, True, 0)
    assert first.group("all") > 0.8 and first.features.shape == (200, 50)
    np.testing.assert_array_equal(first.norms, second.norms)


def test_table_is_mean_and_deviation_by_group():
    accuracy = np.array([1.0] * 7 + [0.5] * 3)
    results = [Result(accuracy - d, np.array([2.0] * 7 + [1.0] * 3), np.zeros((1, 50))) for d in (0.0, 0.1)]
    row = table({"CE": results}).splitlines()[1].split()
    assert row == "CE 95.00 ± 7.07 45.00 ± 7.07 80.00 ± 7.07 2.00".split()


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_idx_files_are_read_packed_or_not(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 28, 28), np.uint8), np.arange(5, dtype=np.uint8)
    for split in ("train", "test"):
        (tmp_path / digits.FILES[split][0]).write_bytes(idx(images))
        (tmp_path / (digits.FILES[split][1] + ".gz")).write_bytes(gzip.compress(idx(labels)))
    data = digits.load("auto", str(tmp_path))
    np.testing.assert_allclose(data.test_images[..., 0], images / 255, rtol=1e-6)
    assert data.train_labels.tolist() == [0, 1, 2, 3, 4]
    (tmp_path / digits.FILES["test"][0]).write_bytes(b"<html>")
    with pytest.raises(digits.UserError, match="not an idx file"):
        digits.from_idx(tmp_path)


def test_missing_files_and_settings_are_one_line(tmp_path, capsys):
    assert main(["--mnist", str(tmp_path)]) == 2
    assert "train-images-idx3-ubyte.gz does not exist" in capsys.readouterr().err
    assert main(["--mnist", str(tmp_path), "--seeds", "0"]) == 2
    assert capsys.readouterr().err == "error: --seeds 0: at least 1\n"


def test_command_on_scikit_learns_digits_draws_the_panels(tmp_path, capsys):
    pytest.importorskip("sklearn")
    arguments = "--data digits --seeds 1 --steps 20 --runs CE C2AM --out".split()
    assert main([*arguments, str(tmp_path)]) == 0
    assert (tmp_path / "figure3.png").stat().st_size > 10_000
    assert "digits, classes (7, 8, 9) cut to 10 images" in capsys.readouterr().out
