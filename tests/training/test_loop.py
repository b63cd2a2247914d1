"""The loop: what it writes, that resuming continues bit for bit, and how it fails."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config
from untrained import untrained_run

from c2am_jax.errors import Stopped, UserError
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.report.checkpoint_report import checkpoint_report
from c2am_jax.training import loop
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.checkpoint_evaluation import evaluate_checkpoint
from c2am_jax.training.loop import train
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.replay import main, replay
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state


def configured(glyph_folder, steps, method="c2am", **values):
    train = {"batch_size": 8, "steps": steps, "checkpoint_every": 3, "eval_every": 0} | values  # one image per device
    data = {"data.name": "small", "data.dir": str(glyph_folder)}
    return tiny_config(method=method).changed(data | {f"train.{name}": value for name, value in train.items()})


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def state_of(config, workdir, step):
    detector, loss_state = build_detector(config)
    optimizer = make_optimizer(config.train, Schedule(config.train, 1).rate)
    like = jax.device_put(init_state(detector, loss_state, optimizer), replicated(data_mesh()))
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.load(like, step)


def test_a_run_that_was_killed_continues_bit_for_bit(glyph_folder, tmp_path, monkeypatch):
    config, undisturbed = configured(glyph_folder, 6), loop.train_batches

    def cut_off(*arguments, **keywords):
        for number, item in enumerate(undisturbed(*arguments, **keywords)):
            if number == 5:  # the loop fetches one batch ahead: steps 1 to 4 are done and logged, 3 is saved
                raise KeyboardInterrupt
            yield item

    train(config, tmp_path / "whole")
    monkeypatch.setattr(loop, "train_batches", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts")
    assert [line["step"] for line in lines(tmp_path / "parts")] == [1, 2, 3, 4]
    monkeypatch.undo()
    named = {"train.init": "imagenet:resnet50"}  # a run that has checkpoints asks for no weights
    train(config.changed(named), tmp_path / "parts")

    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in parts] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(whole, parts, strict=True):
        for line in (a, b):
            line.pop("images_per_sec", None)  # a first step after a start has none: it compiles
        assert a == b
    assert len({line["loss"] for line in whole}) == 6
    keys = {f"loss/{part}" for part in ("rpn_cls", "rpn_box", "cls", "box", "mask")}
    keys |= {"step", "loss", "lr", "grad_norm", "norm/rare/p50", "norm/background"}
    assert keys | {"margin/mean", "margin/max", "margin/wrapped"} <= set(whole[0])

    whole, parts = (state_of(config, tmp_path / name, 6) for name in ("whole", "parts"))
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_evaluation_at_the_end_writes_results_and_again_from_the_checkpoint(glyph_folder, tmp_path, capsys):
    config = configured(glyph_folder, 2, eval_every=-1).changed({"eval.caps": (2, 10)})
    shown = []
    metrics = train(config, tmp_path, show=shown.append)
    start, table, box_caps, mask_caps, norms, place = shown
    assert box_caps.startswith("bbox: only the best k") and mask_caps.startswith("segm: only the best k")
    assert metrics["segm/AP@10"] == metrics["segm/AP"]  # the detector keeps 10
    assert [row["cap"] for row in json.loads((tmp_path / "eval/2/caps.json").read_text())["bbox"]] == [2, 10]
    assert start.startswith(
        "100 classes, 24 images, 3 steps an epoch, 2 steps: warm-up 2, drops at 1, learning rate 0.03"
    )
    assert start.endswith(f"weights from random, workdir {tmp_path}")
    assert "bbox" in table and "weight norm" in norms and place == str(tmp_path / "eval" / "2")
    folder = tmp_path / "eval" / "2"
    names = {"detections_bbox.json", "detections_segm.json", "metrics.json", "weight_norms.json", "category_ap.json"}
    assert names <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert {"bbox/AP", "segm/APr", "segm/AR@300"} <= set(metrics)
    first = (folder / "detections_segm.json").read_bytes()
    entries = json.loads((folder / "detections_bbox.json").read_text())
    assert entries and all(np.isfinite(e["bbox"]).all() and min(e["bbox"][2:]) >= 0 for e in entries)
    page = tmp_path / "report.html"

    def look(evaluated):
        assert evaluated.folder == folder
        checkpoint_report(page, config, evaluated)

    assert evaluate_checkpoint(config, tmp_path, inspect=look) == metrics
    assert all(f'<section id="{name}"' in page.read_text("utf-8") for name in ("norms", "margins", "gallery"))
    assert (folder / "detections_segm.json").read_bytes() == first
    assert not capsys.readouterr().out  # printing is the command's
    with pytest.raises(UserError, match="step 77.*there are: 2"):
        evaluate_checkpoint(config, tmp_path, 77)


@pytest.mark.parametrize(("name", "value"), [("loss", "nan"), ("grad_norm", "inf")])
def test_a_step_that_is_not_finite_is_named_before_anything_is_saved(
    glyph_folder, tmp_path, monkeypatch, capsys, name, value
):
    make = loop.configured_step

    def going_wrong(*arguments, **keywords):
        step, calls = make(*arguments, **keywords), itertools.count(1)

        def run(state, batch, bucket):
            state, metrics = step(state, batch, bucket)
            return state, metrics | ({name: jnp.float32(value)} if next(calls) == 2 else {})

        return run

    monkeypatch.setattr(loop, "configured_step", going_wrong)
    with pytest.raises(UserError, match=rf"the {name} is {value} at step 2, images \[\d+(, \d+){{7}}\]"):
        train(configured(glyph_folder, 6, log_every=100), tmp_path)
    assert not [folder for folder in (tmp_path / "checkpoints").iterdir() if folder.name.isdigit()]
    assert main([str(tmp_path / "nonfinite" / "step_2.npz")]) == 0  # injected: the batch itself is fine
    output = capsys.readouterr().out
    assert "weights of the start: no checkpoint came before; the run took 1 more step before this one" in output
    assert "finite with these weights; whether it was with those of step 1 can't be known" in output
    assert output.count("image ") == 8


def test_a_replayed_step_has_the_losses_of_the_step(glyph_folder, tmp_path, monkeypatch):
    start = {"seed": 1, "init": str(untrained_run(tmp_path / "first"))}
    (tmp_path / "first" / "categories.json").unlink()  # without names, classes go by their order
    config = configured(glyph_folder, 2, "balanced_softmax", batch_size=1, **start)  # which counts classes
    make, found = loop.configured_step, {}

    def going_wrong(*arguments, **keywords):
        step = make(*arguments, **keywords)

        def run(state, batch, bucket):
            state, metrics = step(state, batch, bucket)
            found.update({name.removeprefix("loss/"): float(v) for name, v in metrics.items() if "loss/" in name})
            return state, metrics | {"loss": jnp.float32("nan")}

        return run

    monkeypatch.setattr(loop, "configured_step", going_wrong)
    monkeypatch.setattr(loop, "data_mesh", lambda: data_mesh(jax.devices()[:1]))
    with pytest.raises(UserError, match="the loss is nan at step 1"):
        train(config, tmp_path / "run")
    step, losses = replay(tmp_path / "run" / "nonfinite" / "step_1.npz")
    assert step == 0 and {name: value[0] for name, value in losses.items()} == pytest.approx(found, rel=1e-5)


def test_a_request_to_stop_saves_and_the_same_call_goes_on(glyph_folder, tmp_path, monkeypatch):
    config = configured(glyph_folder, 4, checkpoint_every=100)
    monkeypatch.setattr(loop.StopRequest, "reached", lambda self, step: step == 2)
    with pytest.raises(Stopped, match="step 2 is saved"):
        train(config, tmp_path)
    monkeypatch.undo()
    train(config, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"nothing"])
def test_a_file_that_is_no_batch_is_named(tmp_path, capsys, content):
    (tmp_path / "step_1.npz").write_bytes(content)
    assert main([str(tmp_path / "step_1.npz")]) == 2
    assert "step_1.npz: not a batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model.num_classes": 7}, "num_classes=7.*100 categories"),
        ({"train.batch_size": 9}, "batch_size=9 does not divide"),
        ({"train.init": "no/such/file"}, "no/such/file"),
    ],
)
def test_wrong_settings_are_one_clear_error(glyph_folder, tmp_path, change, named):
    with pytest.raises(UserError, match=named):
        train(configured(glyph_folder, 1).changed(change), tmp_path)


def test_a_run_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        evaluate_checkpoint(tiny_config(), tmp_path / "nothing")


OF_ONE_DEVICE = """
import dataclasses
import jax.numpy as jnp
from c2am_jax.losses import make_classification

plain = make_classification("cosine")

def metric():
    return dataclasses.replace(plain, metrics=lambda samples, head: {"kernel_norm": jnp.linalg.norm(head.kernel)})

def state():
    def loss(samples, head, state):
        return plain.loss(samples, head, {})[0], {"seen": state["seen"] + samples.weights.sum()}
    return dataclasses.replace(plain, init_state=lambda *_: {"seen": jnp.zeros(())}, loss=loss)
"""


@pytest.mark.parametrize(("kind", "name"), [("metric", "kernel_norm"), ("state", "0/seen")])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_loss_makes_of_one_devices_images_is_named(kind, name, accumulate, glyph_folder, tmp_path, monkeypatch):
    (tmp_path / "of_one_device.py").write_text(OF_ONE_DEVICE)
    monkeypatch.syspath_prepend(tmp_path)
    config = configured(glyph_folder, 1, method=f"of_one_device:{kind}", batch_size=16, accumulate=accumulate)
    with pytest.raises(UserError, match=rf"^{kind} {name} of the loss is of one device's images only"):
        train(config, tmp_path / "run")
