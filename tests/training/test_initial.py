"""What a run starts from: recipes name it, frozen parts are never random, and classes of other runs go by name."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest
from loopback import Site
from tiny import second_stage_config, tiny_config
from untrained import CATEGORIES, untrained_run

from c2am_jax.config import glyphs, load_experiment, lvis, parse
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment, TrainSettings
from c2am_jax.interop import export_torch, import_torch
from c2am_jax.training.initial import check_start, initial_weights, load, settings_of
from c2am_jax.training.loop import train
from c2am_jax.training.state import build_detector

KERNEL = "roi_head.bbox_head.fc_cls.kernel"
FROZEN = {"model__backbone__frozen_stages": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The workdir of a run with the classes of `untrained`."""
    return untrained_run(tmp_path_factory.mktemp("first"))


def renamed(names):
    return dataclasses.replace(CATEGORIES, names=tuple(names))


def test_every_lvis_config_starts_from_imagenet_by_its_depth():
    for config, init in (
        ("maskrcnn_r50_c2am", "imagenet:resnet50"),
        ("cascade_r101_ce", "imagenet:resnet101"),
        ("methods/eql:v05", "imagenet:resnet50"),
        ("methods/eql:uniform", "imagenet:resnet50"),
        ("methods/eql:glyphs", "random"),
        ("glyphs_c2am", "random"),
        ("methods/crt", "random"),
        ("methods/loce:v05", "random"),
    ):
        assert settings_of(load_experiment(config)).init == init, config
    deeper = load_experiment("maskrcnn_r50_c2am").changed({"model.backbone.depth": 101})
    assert settings_of(deeper).init == "imagenet:resnet101"


def test_an_empty_init_of_older_versions_is_random():
    tree = parse(glyphs("x", "c2am")).as_json()
    tree["train"]["init"] = ""
    assert Experiment.from_dict(tree).train.init == "random" == TrainSettings().init


@pytest.mark.parametrize(
    ("config", "init", "message"),
    [
        ("methods/disalign", None, r"train\.trainable would freeze random weights: .*--config\.train\.init=WORKDIR"),
        ("maskrcnn_r50_ce", "random", r"frozen_stages=1 would freeze random weights: .*imagenet.*frozen_stages=-1"),
        ("maskrcnn_r50_ce", "imagenet:resnet5", r"train\.init=imagenet:resnet5: .* known .*; there are coco:mask_rcnn"),
        ("maskrcnn_r50_ce", "ftp://a/b.pth", "https:// and http://"),
        ("maskrcnn_r50_ce", "no/such/file.pth", "no file or workdir no/such/file.pth"),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_data_are_opened(tmp_path, config, init, message):
    experiment = load_experiment(config).changed({"data.dir": str(tmp_path / "nothing")})
    with pytest.raises(UserError, match=message):
        train(experiment.changed({"train.init": init} if init else {}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_weights_have_to_be_in_the_source(tmp_path, first):
    detector, _ = build_detector(tiny_config(**FROZEN))
    with pytest.raises(UserError, match=r"frozen_stages \(backbone\.conv1\.kernel, .*\) would freeze random"):
        initial_weights(TrainSettings(), detector)
    np.savez(tmp_path / "w.npz", **{"rpn_head.rpn_cls.bias": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"w\.npz has no weights for backbone\.conv1\.kernel, .* this run freezes"):
        initial_weights(TrainSettings(init=str(tmp_path / "w.npz")), detector)
    start = initial_weights(TrainSettings(init=str(first)), detector)
    assert "backbone.conv1.kernel" in start.rest
    free, _ = build_detector(tiny_config())
    assert initial_weights(TrainSettings(), free) is free


def test_a_classifier_that_starts_again_or_has_rows_at_random_cannot_be_frozen(first):
    config = second_stage_config("lws")
    detector, _ = build_detector(config)
    names = ["new", *CATEGORIES.names[1:]]
    schedule = dataclasses.replace(config.train, init=str(first), reset_classifier=True)
    with pytest.raises(UserError, match=rf"has no weights for {KERNEL}, which this run freezes"):
        initial_weights(schedule, detector, names)
    schedule = dataclasses.replace(config.train, init=str(first), reset=(KERNEL,))
    with pytest.raises(UserError, match=rf"has no weights for {KERNEL}, which this run freezes"):
        initial_weights(schedule, detector, CATEGORIES.names)


def test_a_linear_classifier_of_a_first_stage_that_scores_by_angle_is_refused(tmp_path):
    """It has no bias, and the second stage would freeze one of zeros."""
    config = second_stage_config("lws")
    cosine, _ = build_detector(config.changed({"loss": {"name": "c2am"}, "train.trainable": ()}))
    export_torch.write_weights(tmp_path / "cosine.safetensors", cosine.arrays)
    schedule = dataclasses.replace(config.train, init=str(tmp_path / "cosine.safetensors"))
    with pytest.raises(
        UserError, match=r"has no weights for roi_head\.bbox_head\.fc_cls\.bias, which this run freezes"
    ):
        initial_weights(schedule, build_detector(config)[0], CATEGORIES.names)


def test_rows_of_another_runs_classes_go_by_name(first, caplog):
    caplog.set_level(logging.INFO)
    detector, _ = build_detector(tiny_config(train__seed=5))
    straight = load(str(first), detector, classes=CATEGORIES.names).detector.params[KERNEL]
    backwards = load(str(first), detector, classes=CATEGORIES.names[::-1]).detector.params[KERNEL]
    np.testing.assert_array_equal(backwards[:, :100], straight[:, 99::-1])
    np.testing.assert_array_equal(backwards[:, 100], straight[:, 100])
    assert "100 of 100 classes are among its 100, their rows are taken by name" in caplog.text
    other = [f"photo {k}" for k in range(100)]
    with pytest.raises(UserError, match=rf"{first}: 100 of this run's 100 classes are not .*photo 0, photo 1"):
        load(str(first), detector, classes=other)
    mixed = load(
        str(first), detector, classes=[*CATEGORIES.names[50:], *other[50:]], reset_classifier=True
    ).detector.params[KERNEL]
    np.testing.assert_array_equal(mixed[:, :50], straight[:, 50:100])
    np.testing.assert_array_equal(mixed[:, 50:100], detector.params[KERNEL][:, 50:100])
    few, _ = build_detector(tiny_config(model__num_classes=7))
    part = load(str(first), few, classes=CATEGORIES.names[3:10]).detector.params[KERNEL]
    np.testing.assert_array_equal(part[:, :7], straight[:, 3:10])


def test_a_training_refuses_classes_of_other_names(glyph_folder, first, tmp_path):
    """The glyphs' own names against "thing 0", "thing 1": as many, and the first loss would have told nothing."""
    data = {"data.name": "small", "data.dir": str(glyph_folder), "train.init": str(first), "train.batch_size": 8}
    with pytest.raises(UserError, match=rf"{first}: 100 of this run's 100 classes are not among its 100: "):
        train(tiny_config().changed(data), tmp_path)


def test_names_travel_through_exported_and_imported_files(first, tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    assert export_torch.main(["--workdir", str(first), "--out", str(file)]) == 0
    monkeypatch.setattr(import_torch, "load_experiment", lambda argument: tiny_config())
    out = tmp_path / "imported"
    assert import_torch.main([str(file), "--config", "tiny", "--out", str(out)]) == 0
    assert tuple(json.loads((out / "import.json").read_text())["classes"]) == CATEGORIES.names
    detector, _ = build_detector(tiny_config(train__seed=5))
    found = [load(str(source), detector, classes=CATEGORIES.names[::-1]).detector for source in (first, file, out)]
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other.arrays, found[0].arrays)


def test_an_import_takes_overrides(first, tmp_path, monkeypatch, capsys):
    file = tmp_path / "w.npz"
    assert export_torch.main(["--workdir", str(first), "--out", str(file)]) == 0
    monkeypatch.setattr(import_torch, "load_experiment", lambda argument: tiny_config(model__num_classes=7))
    command = [str(file), "--config", "tiny", "--out", str(tmp_path / "run")]
    assert import_torch.main([*command, "--override", "model.num_classes=100", "--override", "name=mine"]) == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["model"]["num_classes"], written["name"]) == (100, "mine")
    command[-1] = str(tmp_path / "other")
    assert import_torch.main([*command, "--override", "model.num_class=100"]) == 2
    assert import_torch.main([*command, "--override", "model.num_classes"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "config tiny: model.num_class: no such setting; did you mean" in errors[0]
    assert errors[1] == "error: --override model.num_classes: write KEY=VALUE, such as train.steps=100"


def test_a_workdir_with_checkpoints_needs_no_weights(first):
    """test_loop.py resumes such a run."""
    check_start(parse(lvis("x", "c2am")).changed({"train.init": "gone.pth"}), first)


def test_a_url_is_downloaded_like_a_name(first, tmp_path, monkeypatch):
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    file = tmp_path / "w.safetensors"
    export_torch.export_weights(first, file)
    detector, _ = build_detector(tiny_config(train__seed=5))
    with Site({"/w.safetensors": file.read_bytes()}).served() as address:
        found = load(f"{address}/w.safetensors", detector, classes=CATEGORIES.names).detector
    expected = load(str(first), detector, classes=CATEGORIES.names).detector
    jax.tree.map(np.testing.assert_array_equal, found.arrays, expected.arrays)
