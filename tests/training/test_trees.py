"""Class hierarchies of a training set: from its annotations, and from a baseline that has to be there."""

import numpy as np
import pytest

from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.losses.methods.forest import parent_count
from c2am_jax.training import trees as module
from c2am_jax.training.trees import trees_of


@pytest.fixture
def dataset(glyph_folder):
    return open_dataset(DataSettings("small", str(glyph_folder)), "train")


def test_trees_of_annotations_are_read_once(dataset, monkeypatch):
    trees = trees_of(dataset)
    found = trees("")
    assert set(found) == {"lexical", "geometric"}
    for tree, parents in found.items():
        assert parents.shape == (100,) and 0 <= parents.min() and parents.max() < parent_count(tree, 100)
    monkeypatch.setattr(module, "read_objects", None)
    assert trees("")["lexical"] is found["lexical"]


def test_visual_tree_is_that_of_the_baselines_classifier(dataset, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    groups = np.append(np.arange(100) % 3, 3)
    kernel = np.eye(4)[:, groups] + 1e-3 * np.random.default_rng(0).normal(size=(4, 101))
    arrays = {"roi_head.bbox_head.fc_cls.kernel": kernel.astype(np.float32)}
    monkeypatch.setattr(module, "weights_of_workdir", lambda workdir: (arrays, 7))
    monkeypatch.setattr(module, "parent_count", lambda tree, classes: 3)
    parents = trees_of(dataset)(str(tmp_path))["visual"]
    for group in range(3):
        assert len(set(parents[groups[:-1] == group])) == 1
    assert len(set(parents)) == 3
    arrays["roi_head.bbox_head.fc_cls.kernel"] = kernel[:, :50]
    with pytest.raises(UserError, match=r"config.loss.visual=.*no classifier of 100 classes.*baseline"):
        trees_of(dataset)(str(tmp_path))


def test_missing_baseline_names_the_setting_and_leaves_nothing(dataset, tmp_path):
    with pytest.raises(UserError, match=r"config.loss.visual=.*/nosuch: no run with checkpoints there; name the"):
        trees_of(dataset)(str(tmp_path / "nosuch"))
    assert not (tmp_path / "nosuch").exists()
