"""Every method trains a detector: 200 steps that end lower, resume, and are the same on other devices."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny import second_stage_config, tiny_config

from c2am_jax.errors import UserError
from c2am_jax.losses.methods import METHODS, decoupled, method_parameters
from c2am_jax.training import loop
from c2am_jax.training.initial import weights_of_workdir
from c2am_jax.training.step import data_mesh

SECOND_STAGE = ("crt", *(name for name, make in METHODS.items() if make.__module__ == decoupled.__name__))
ONE_STAGE = [name for name in METHODS if name not in SECOND_STAGE]


def on_glyphs(config, folder, steps):
    config.data.name, config.data.dir = "small", str(folder)
    config.train.batch_size, config.train.steps, config.train.base_lr = 8, steps, 0.01
    config.train.checkpoint_every, config.train.eval_every = 100, -1 if steps == 200 else 0
    config.train.log_every = 1 if steps < 100 else 5
    return config


def configured(name, folder, steps):
    config = tiny_config(method=name)
    if "features" in method_parameters(name):
        config.loss.features = config.model.box_head.fc_channels
    config.data.held_out = 0.2 if name == "fasa" else 0.0
    return on_glyphs(config, folder, steps)


def interrupted(workdir, copy):
    """What a kill after checkpoint 100 leaves of a run of 200 steps."""
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("200", "best*", "eval", "events*"))
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 100))
    return copy


def logged(workdir, name="loss"):
    return [json.loads(line)[name] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def use_devices(monkeypatch, count):
    monkeypatch.setattr(loop, "data_mesh", lambda: data_mesh(jax.devices()[:count]))


def trains(make_config, falling, tmp_path, monkeypatch):
    """What every method has to do; `make_config` takes steps, and the metric `falling` falls."""
    use_devices(monkeypatch, 1)
    results = loop.train(make_config(200), tmp_path / "whole")
    whole, lower = logged(tmp_path / "whole"), logged(tmp_path / "whole", falling)
    assert np.isfinite(whole).all() and len(whole) == 40
    assert np.mean(lower[-5:]) < 0.97 * np.mean(lower[:5])
    assert {"bbox/AP", "segm/APr"} <= set(results)

    parts = interrupted(tmp_path / "whole", tmp_path / "parts")
    again = loop.train(make_config(200), parts)
    assert logged(parts) == whole and again == results

    same_on_eight_devices(make_config(6), tmp_path, monkeypatch)


def same_on_eight_devices(config, tmp_path, monkeypatch):
    for count in (1, 8):
        use_devices(monkeypatch, count)
        loop.train(config, tmp_path / str(count))
    np.testing.assert_allclose(logged(tmp_path / "8"), logged(tmp_path / "1"), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_method_of_one_stage_trains(name, glyph_folder, tmp_path, monkeypatch):
    trains(lambda steps: configured(name, glyph_folder, steps), "loss", tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def first_stages(glyph_folder, tmp_path_factory):
    """Workdirs of trained detectors by method."""
    folder = tmp_path_factory.mktemp("first")
    for name in ("softmax", "balanced_sigmoid"):
        loop.train(configured(name, glyph_folder, 100), folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND_STAGE)
def test_a_second_stage_trains_what_it_names(name, first_stages, glyph_folder, tmp_path, monkeypatch):
    first = first_stages / ("balanced_sigmoid" if name == "balms" else "softmax")

    def make_config(steps):
        config = on_glyphs(second_stage_config(name, init=str(first)), glyph_folder, steps)
        config.train.base_lr = 0.2  # the little that trains starts near its end
        return config

    trains(make_config, "loss/cls", tmp_path, monkeypatch)
    before, _ = weights_of_workdir(first)
    after, step = weights_of_workdir(tmp_path / "whole")
    moved = {n for n, value in after.items() if n in before and not np.array_equal(value, before[n])}
    assert step == 200 and not any(n.startswith(("backbone.", "neck.")) for n in moved)
    if name != "loce":  # which trains the RPN and the mask head, too
        assert moved <= {f"roi_head.bbox_head.fc_cls.{part}" for part in ("kernel", "bias")}
    other = make_config(205)
    other.train.trainable = ()
    with pytest.raises(UserError, match=r"train\.trainable"):
        loop.train(other, tmp_path / "parts")
    other.train.init, other.train.trainable = "", make_config(1).train.trainable
    with pytest.raises(UserError, match=r"freeze random weights.*--config\.train\.init"):
        loop.train(other, tmp_path / "none")


@pytest.mark.slow
def test_forest_with_a_visual_tree_and_masks_of_parents(glyph_folder, tmp_path, monkeypatch):
    loop.train(configured("softmax", glyph_folder, 2), tmp_path / "baseline")
    config = configured("forest", glyph_folder, 6)
    config.loss.visual = str(tmp_path / "baseline")
    config.model.rpn.resampling_ious = (0.9, 0.8, 0.7)
    config.model.mask_head.class_agnostic, config.model.mask_head.geometric = False, True
    same_on_eight_devices(config, tmp_path, monkeypatch)
    arrays, _ = weights_of_workdir(tmp_path / "8")
    assert sum(name.endswith("visual_parent") for name in arrays) == 1
