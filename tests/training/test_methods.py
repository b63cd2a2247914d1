"""Every method of one stage trains a detector: 200 steps that end lower, resume, and are the same on other devices."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.losses.methods import METHODS, decoupled, method_parameters
from c2am_jax.training import loop
from c2am_jax.training.initial import weights_of_workdir
from c2am_jax.training.step import data_mesh

# Second stages: test_two_stage.py.
ONE_STAGE = [name for name, make in METHODS.items() if make.__module__ != decoupled.__name__]


def configured(name, folder, steps):
    config = tiny_config(method=name)
    if "features" in method_parameters(name):
        config.loss.features = config.model.box_head.fc_channels
    config.data.held_out = 0.2 if name == "fasa" else 0.0
    config.data.name, config.data.dir = "small", str(folder)
    config.train.batch_size, config.train.steps, config.train.base_lr = 8, steps, 0.01
    config.train.checkpoint_every, config.train.eval_every = 100, -1 if steps == 200 else 0
    config.train.log_every = 1 if steps < 100 else 5
    return config


def interrupted(workdir, copy):
    """What a kill after checkpoint 100 leaves of a run of 200 steps."""
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("200", "best*", "eval", "events*"))
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 100))
    return copy


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_method_trains(name, glyph_folder, tmp_path, monkeypatch):
    results = loop.train(configured(name, glyph_folder, 200), tmp_path / "whole")
    whole = losses(tmp_path / "whole")
    assert np.isfinite(whole).all() and len(whole) == 40
    assert np.mean(whole[-5:]) < 0.97 * np.mean(whole[:5])
    assert {"bbox/AP", "segm/APr"} <= set(results)

    parts = interrupted(tmp_path / "whole", tmp_path / "parts")
    again = loop.train(configured(name, glyph_folder, 200), parts)
    assert losses(parts) == whole and again == results

    same_on_one_device(configured(name, glyph_folder, 6), tmp_path, monkeypatch)


def same_on_one_device(config, tmp_path, monkeypatch):
    loop.train(config, tmp_path / "eight")
    monkeypatch.setattr(loop, "data_mesh", lambda: data_mesh(jax.devices()[:1]))
    loop.train(config, tmp_path / "one")
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "eight"), rtol=1e-3)


@pytest.mark.slow
def test_forest_with_a_visual_tree_and_masks_of_parents(glyph_folder, tmp_path, monkeypatch):
    loop.train(configured("softmax", glyph_folder, 2), tmp_path / "baseline")
    config = configured("forest", glyph_folder, 6)
    config.loss.visual = str(tmp_path / "baseline")
    config.model.rpn.resampling_ious = (0.9, 0.8, 0.7)
    config.model.mask_head.class_agnostic, config.model.mask_head.geometric = False, True
    same_on_one_device(config, tmp_path, monkeypatch)
    arrays, _ = weights_of_workdir(tmp_path / "eight")
    assert sum(name.endswith("visual_parent") for name in arrays) == 1
