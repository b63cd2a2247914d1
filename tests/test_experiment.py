"""The experiment as a value: what is wrong is told by one line, and what an older version wrote is read."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from c2am_jax import experiment as module
from c2am_jax.checks import WrongSetting
from c2am_jax.config import glyphs, load_experiment, lvis, parse
from c2am_jax.data.settings import DataSettings
from c2am_jax.experiment import Experiment, LossSettings, TrainSettings, read_experiment
from c2am_jax.models.architecture import MaskRCNNSettings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

# Key, value as the flag gives it, and the words that say what is allowed.
WRONG = [
    ("name", "''", "a text that is not empty"),
    ("train.batch_size", "0", "a whole number of at least 1"),
    ("train.epochs", "0", "a whole number of at least 1"),
    ("train.steps", "-5", "a whole number of at least 0"),
    ("train.base_lr", "-1.0", "a number of at least 0"),
    ("train.base_lr", "float('nan')", "a number of at least 0"),
    ("train.base_lr", "float('inf')", "a number of at least 0"),
    ("train.lr_drops", "(0.9, 0.6)", "ascending shares of the run from 0 to 1"),
    ("train.lr_drops", "(16, 22)", "ascending shares of the run from 0 to 1"),
    ("train.lr_steps", "(0, 5)", "ascending steps from 1 on"),
    ("train.lr_gamma", "1.5", "a number from 0 to 1"),
    ("train.warmup_steps", "-2", "a number of steps, or -1 (as long as the run allows)"),
    ("train.warmup_factor", "-0.1", "a number from 0 to 1"),
    ("train.momentum", "1.0", "a number from 0 to below 1"),
    ("train.weight_decay", "-1e-4", "a number of at least 0"),
    ("train.grad_clip", "-1.0", "a number of at least 0"),
    ("train.log_every", "0", "a whole number of at least 1"),
    ("train.checkpoint_every", "0", "a whole number of at least 1"),
    ("train.eval_every", "-2", "a number of steps, 0 (never) or -1 (once at the end)"),
    ("train.keep", "0", "a whole number of at least 1"),
    ("train.seed", "-1", "a whole number from 0 to below 2**63"),
    ("train.trainable", "('',)", "a tuple, each entry a text that is not empty"),
    ("train.accumulate", "3", "a divisor of batch_size=16"),
    ("train.compute_dtype", "'float16'", "one of float32, bfloat16"),
    ("eval.batch_size", "0", "a whole number of at least 1"),
    ("eval.compute_dtype", "'half'", "one of train, float32, bfloat16"),
    ("calibration.name", "'platt'", "one of none, tau_norm, norcal, logn, fracal"),
    ("calibration.tau", "1.5", "a number from 0 to 1"),
    ("calibration.gamma", "-1.0", "a number of at least 0"),
    ("loss.name", "'c2an'", "c2am"),
    ("loss.background", "'some'", "all, foreground_only"),
    ("loss.wrap", "'mirror'", "literal, clip, monotone"),
    ("loss.scale", "0.0", "a number above 0"),
    ("loss.alpha", "'much'", "a number of at least 0"),
    ("data.canvas", "0", "a whole number of at least 1"),
    ("data.max_instances", "0", "a whole number of at least 1"),
    ("data.workers", "0", "a whole number of at least 1"),
    ("data.sampler", "'sorted'", "one of random, repeat_factor, repeat_factor_stochastic, class_aware"),
    ("data.repeat_threshold", "2.0", "a number from 0 to 1"),
    ("data.held_out", "1.0", "a number from 0 to below 1"),
    ("data.short_sides", "()", "one or more lengths"),
    ("data.short_sides", "(640, 1400)", "at most data.max_side=1333"),
    ("data.test_short_side", "1400", "at most data.max_side=1333"),
    ("data.flip_probability", "1.5", "a number from 0 to 1"),
    ("data.buckets", "(256, 320)", "one or more (height, width), both multiples of 32"),
    ("data.buckets", "((100, 100),)", "one or more (height, width), both multiples of 32"),
    ("data.buckets", "((64,),)", "one or more (height, width), both multiples of 32"),
    ("data.buckets", "()", "one or more (height, width), both multiples of 32"),
    ("data.buckets", "((640, 640),)", "large enough for pictures of 800x800, see data.short_sides"),
    ("data.scale_jitter", "(2.0, 0.5)", "() or (low, high) with 0 < low <= high"),
    ("data.scale_jitter", "(0.5,)", "() or (low, high) with 0 < low <= high"),
    ("data.copy_paste", "1.5", "a number from 0 to 1"),
    ("data.color_jitter", "(0.4, 0.4, 0.4)", "hue (0 to 0.5)"),
    ("data.color_jitter", "(0.4, 0.4, 0.4, 0.6)", "hue (0 to 0.5)"),
    ("data.mean", "(1.0, 2.0)", "a tuple of 3, each entry a finite number"),
    ("data.std", "(0.0, 1.0, 1.0)", "a tuple of 3, each entry a number above 0"),
    ("model.num_classes", "0", "a whole number of at least 1"),
    ("model.backbone.depth", "34", "one of 10, 18, 50, 101"),
    ("model.backbone.norm", "'batch'", "one of frozen_bn, sync_bn, group_norm"),
    ("model.backbone.frozen_stages", "5", "a whole number from -1 (nothing is frozen) to 4"),
    ("model.fpn.norm", "'frozen_bn'", "one of none, group_norm"),
    ("model.rpn.anchor_scale", "-8.0", "a number above 0"),
    ("model.rpn.anchor_ratios", "()", "one or more numbers above 0"),
    ("model.rpn.strides", "(4, 8)", "five strides, of the levels P2 to P6"),
    ("model.rpn.strides", "(8, 4, 16, 32, 64)", "ascending strides"),
    ("model.rpn.samples", "0", "a whole number of at least 1"),
    ("model.rpn.negative_iou", "0.8", "at most positive_iou=0.7"),
    ("model.rpn.resampling_ious", "(0.9,)", "() or three IoUs from 0 to 1"),
    ("model.box_head.pool_size", "0", "a whole number of at least 1"),
    ("model.box_head.positive_fraction", "1.5", "a number from 0 to 1"),
    ("model.box_head.delta_stds", "(0.1, 0.1, 0.2)", "a tuple of 4, each entry a number above 0"),
    ("model.cascade.positive_ious", "(0.5, 0.6)", "one for each stage of positive_ious=(0.5, 0.6)"),
    ("model.mask_head.predictor", "'cosine'", "one of plain, normed"),
    ("model.test.score_threshold", "1.5", "a number from 0 to 1"),
    ("model.test.max_detections", "0", "a whole number of at least 1"),
]


def value_of(text):
    return float(text[7:-2]) if text.startswith("float(") else ast.literal_eval(text)


@pytest.mark.parametrize(("key", "text", "allowed"), WRONG, ids=[f"{key}={text}" for key, text, _ in WRONG])
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(key, text, allowed):
    config, value = lvis("x", "c2am"), value_of(text)
    *groups, last = key.split(".")
    place = config
    for group in groups:
        place = place[group]
    with place.ignore_type():
        place[last] = value
    with pytest.raises(WrongSetting) as error:
        parse(config)
    line = str(error.value)
    blamed = {"model.cascade.positive_ious": "model.cascade.delta_stds"}.get(key, key)
    if "large enough" in allowed or "at most data" not in allowed:
        assert line.startswith(f"config.{blamed}=")
    assert allowed in line and "\n" not in line
    if blamed == key:
        assert repr(value) in line


def test_values_of_another_type_are_refused_whatever_the_key_holds():
    for key, value in (("train.steps", 1.5), ("train.reset_classifier", 1), ("train.init", 3), ("train.reset", "a")):
        with pytest.raises(WrongSetting, match=f"^{key}={value!r}: must be "):
            parse(lvis("x", "c2am")).changed({key: value})
    with pytest.raises(WrongSetting, match="^model=3: must be a group of settings"):
        parse(lvis("x", "c2am")).changed({"model": 3})
    assert parse(lvis("x", "c2am")).changed({"train.base_lr": 1}).train.base_lr == 1  # a whole number is a number


def test_channels_of_masks_are_of_no_class_or_of_some():
    with pytest.raises(WrongSetting, match=r"^config\.model\.mask_head\.geometric=True: must be False where class_agn"):
        config = glyphs("x", "softmax")
        config.model.mask_head.geometric = True
        parse(config)


def test_an_unknown_key_names_its_neighbour():
    with pytest.raises(WrongSetting, match=r"^train\.stesp: no such setting; did you mean train\.steps\?"):
        parse(glyphs("x", "c2am")).changed({"train.stesp": 1})
    with pytest.raises(WrongSetting, match=r"^loss\.alpha: no such setting; there are none"):
        parse(glyphs("x", "softmax")).changed({"loss": {"name": "softmax", "alpha": 1.0}})


def test_a_short_trial_may_end_before_the_rate_drops():
    assert TrainSettings(epochs=1, lr_steps=(9000,)).epochs == 1


def test_defaults_stand_at_their_fields_alone():
    experiment = Experiment("x", LossSettings("c2am"))
    assert (experiment.model, experiment.data, experiment.train) == (
        MaskRCNNSettings(),
        DataSettings(),
        TrainSettings(),
    )
    assert parse(lvis("x", "c2am")) == experiment.changed({"train.init": "imagenet"})
    assert experiment.loss.parameters["scale"] == 30.0


def test_an_experiment_cannot_be_changed_but_copied_with_changes():
    experiment = parse(glyphs("x", "c2am"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.train.steps = 3
    other = experiment.changed({"train.steps": 3, "data.buckets": [[128, 160]], "loss.alpha": 0.1})
    assert (other.train.steps, other.data.buckets, other.loss.parameters["alpha"]) == (3, ((128, 160),), 0.1)
    assert experiment.train.steps == 0 and other.changed({"train.steps": 0}) != experiment


def test_json_gives_the_experiment_back():
    experiment = load_experiment("configs/glyphs_cascade_c2am.py")
    assert Experiment.from_dict(json.loads(json.dumps(experiment.as_dict()))) == experiment


def test_what_an_older_version_did_not_write_has_its_default_and_what_is_obsolete_is_left_out(monkeypatch):
    experiment = parse(glyphs("x", "c2am"))
    old = json.loads(json.dumps(experiment.as_dict()))
    del old["calibration"], old["train"]["trainable"], old["model"]["mask_head"]["predictor"], old["loss"]["wrap"]
    assert Experiment.from_dict(old) == experiment
    old["train"]["optimizer"] = "sgd"
    with pytest.raises(WrongSetting, match=r"^train\.optimizer: no such setting"):
        Experiment.from_dict(old)
    monkeypatch.setattr(module, "OBSOLETE", {"train.optimizer", "loss.features", "loss.scale"})
    old["loss"] |= {"features": 1024, "scale": 20.0}
    assert Experiment.from_dict(old) == experiment.changed({"loss.scale": 20.0})  # which the method does have


@pytest.mark.parametrize("config", [*sorted(path.stem for path in CONFIGS.glob("*_c2am.py")), "methods/c2am:glyphs"])
def test_c2am_gives_background_no_margins_and_an_older_run_keeps_its_rule(config, tmp_path):
    experiment = load_experiment(config)
    assert experiment.loss.parameters["background"] == "foreground_only"
    old = experiment.changed({"loss.background": "all"})
    (tmp_path / "config.json").write_text(json.dumps(old.as_json()))
    assert read_experiment(tmp_path / "config.json") == old != experiment
