"""Every method trains a detector: 200 steps that lower its loss, resume, and are the same on other devices.

Methods of one stage train a toy from random weights; second stages are too weak to move one, so they run as their
configs say for the built-in data, from a detector of full size that has learnt something.
"""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw_glyphs, tiny_config

from c2am_jax.config import load_experiment
from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.pipeline import train_batches
from c2am_jax.errors import UserError
from c2am_jax.losses.methods import METHODS
from c2am_jax.mesh import data_mesh, image_key
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.training import loop
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.initial import initial_weights, weights_of_workdir
from c2am_jax.training.restore import first_state
from c2am_jax.training.state import class_statistics

DECOUPLED = ["lws", "bags", "disalign", "balms", "loce"]
ONE_STAGE = [name for name in METHODS if name not in DECOUPLED]
SECOND_STAGE = ["crt", "acsl_second_stage", "bacl_second_stage", *DECOUPLED]  # files of configs/methods
FIRST = {"balms": "balanced_sigmoid", "bacl_second_stage": "bacl_first_stage"}  # of all others: softmax
LATE = {"pcb": {"loss.start_epoch": 0, "loss.start_step": 50}}  # what starts later than a toy's run is long


@pytest.fixture(scope="module")
def few_glyphs(tmp_path_factory):
    """120 images; the counts of classes fall from 100 to 4, so that some images can be held out."""
    return draw_glyphs(tmp_path_factory.mktemp("few"), train_images=120, head=100, shift=4.0)


@pytest.fixture(scope="module")
def many_glyphs(tmp_path_factory):
    """1200 images; the counts of classes fall from 350 to 4."""
    return draw_glyphs(tmp_path_factory.mktemp("many"), train_images=1200, head=350)


def on_glyphs(config, folder, steps):
    train = {"train.batch_size": 8, "train.steps": steps, "train.log_every": 1 if steps < 100 else 5}
    train |= {"train.checkpoint_every": 100, "train.eval_every": -1 if steps == 200 else 0}
    return config.changed({"data.name": "small", "data.dir": str(folder)} | train)


def one_stage(name, folder, steps):
    config = tiny_config(method=name, data__held_out=0.2 if name == "fasa" else 0.0, train__warmup_steps=50)
    return on_glyphs(config, folder, steps).changed(LATE.get(name, {}))


def interrupted(workdir, copy):
    """What a kill after checkpoint 100 leaves of a run of 200 steps."""
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("200", "best*", "eval", "events*"))
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 100))
    return copy


def logged(workdir):
    """Lines of the log's steps without the time that they took; a value that is no number stops here."""

    def no_number(text):
        raise AssertionError(f"{text} in {workdir}/metrics.jsonl")

    lines = [
        json.loads(text, parse_constant=no_number) for text in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [line for line in lines if "loss" in line]  # an evaluation has a line of its own
    return [{name: value for name, value in line.items() if name != "images_per_sec"} for line in steps]


def fixed_losses(config, workdir, images):
    """Each loss before and after the training in `workdir`, on training images.

    Both on the same images, with the same draws of anchors and RoIs and in the state that the loss had at the end:
    nothing differs but the weights. (The logged losses of 200 steps are mostly noise of the images.)
    """
    dataset = open_dataset(config.data, "train")
    state = first_state(config, data_mesh(jax.devices()[:1]), class_statistics(dataset))
    with Checkpoints(workdir) as checkpoints:
        after = checkpoints.load(state)
    before = initial_weights(config.train, state.detector)

    @jax.jit
    def losses(detector, inputs, keys):
        found = detector.module().loss(inputs, keys, after.loss_state)[0]
        return found | {"all": sum(found.values())}

    stream = train_batches(dataset, config.data, batch_size=8, seed=config.train.seed)
    found = []
    for number, (bucket, batch) in zip(range(images // 8), stream, strict=False):
        inputs = preprocess(jax.tree.map(jnp.asarray, batch), bucket, **config.data.pixels)
        keys = image_key(0, number, jnp.arange(8))
        found.append([losses(detector, inputs, keys) for detector in (before, after.detector)])
    return {name: [float(np.mean([pair[i][name] for pair in found])) for i in (0, 1)] for name in found[0][0]}


def use_devices(monkeypatch, count):
    monkeypatch.setattr(loop, "data_mesh", lambda: data_mesh(jax.devices()[:count]))


def trains(make_config, falling, images, tmp_path, monkeypatch):
    """What every method has to do.

    `make_config` takes steps; `falling` are losses with the share by which each falls at least, on so many training
    `images`.
    """
    use_devices(monkeypatch, 1)
    results = loop.train(make_config(200), tmp_path / "whole")
    whole = logged(tmp_path / "whole")
    assert [line["step"] for line in whole] == list(range(5, 201, 5))
    assert {"bbox/AP", "segm/APr"} <= set(results)

    losses = fixed_losses(make_config(200), tmp_path / "whole", images)
    print(losses)
    for name, share in falling.items():
        before, after = losses[name]
        assert after < (1 - share) * before, f"{name}: {before} before, {after} after"

    parts = interrupted(tmp_path / "whole", tmp_path / "parts")
    again = loop.train(make_config(200), parts)
    assert logged(parts) == whole and again == results

    same_on_eight_devices(make_config(6), tmp_path, monkeypatch)


def same_on_eight_devices(config, tmp_path, monkeypatch):
    # At the gradients of 400 that margins start with, larger steps make rounding grow.
    config = config.changed({"train.base_lr": 0.01})
    for count in (1, 8):
        use_devices(monkeypatch, count)
        loop.train(config, tmp_path / str(count))
    one, eight = ([line["loss"] for line in logged(tmp_path / str(count))] for count in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_method_of_one_stage_trains(name, few_glyphs, tmp_path, monkeypatch):
    # Balanced softmax starts from the classes' counts: its classifier leaves little to a toy.
    falling = {"all": 0.05, "cls": 0.02 if name == "balanced_softmax" else 0.05}
    trains(lambda steps: one_stage(name, few_glyphs, steps), falling, 64, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def optimised():
    """Programs as XLA makes them for users: at full size, steps take longer than compilation."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def first_stage(many_glyphs, optimised, tmp_path_factory):
    """Workdir of a trained detector by method."""
    folder = tmp_path_factory.mktemp("first")

    @functools.cache
    def trained(name):
        config = on_glyphs(load_experiment(f"methods/{name}:glyphs"), many_glyphs, 600)
        loop.train(config.changed({"train.lr_drops": (0.75, 0.9), "train.warmup_steps": 100}), folder / name)
        return folder / name

    return trained


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND_STAGE)
def test_a_second_stage_trains_what_it_names(name, first_stage, many_glyphs, tmp_path, monkeypatch):
    first = first_stage(FIRST.get(name, "softmax"))

    def make_config(steps):
        config = on_glyphs(load_experiment(f"methods/{name}:glyphs"), many_glyphs, steps)
        rate = {"train.base_lr": 0.5} if name == "lws" else {}  # 101 scales, made for 75 000 steps at 0.02
        return config.changed({"train.init": str(first)} | rate)

    trains(make_config, {"cls": 0.002 if name == "lws" else 0.01}, 256, tmp_path, monkeypatch)
    before, _ = weights_of_workdir(first)
    after, step = weights_of_workdir(tmp_path / "whole")
    moved = {n for n, value in after.items() if n in before and not np.array_equal(value, before[n])}
    assert step == 200 and not any(n.startswith(("backbone.", "neck.")) for n in moved)
    if name not in ("loce", "bacl_second_stage"):  # which train the RPN and the mask head, too
        assert moved <= {f"roi_head.bbox_head.fc_cls.{part}" for part in ("kernel", "bias")}
    other = make_config(205).changed({"train.trainable": ()})
    with pytest.raises(UserError, match=r"train\.trainable"):
        loop.train(other, tmp_path / "parts")
    other = make_config(205).changed({"train.init": "random"})
    with pytest.raises(UserError, match=r"freeze random weights.*--config\.train\.init"):
        loop.train(other, tmp_path / "none")


@pytest.mark.slow
def test_box_regression_with_a_class_agnostic_branch_trains(few_glyphs, tmp_path, monkeypatch):
    mixed = {"model.box_head.class_agnostic": False, "model.box_head.class_agnostic_branch": True}
    falling = {"all": 0.05, "cls": 0.05}  # the box loss grows with the positives that the RPN comes to find
    trains(lambda steps: one_stage("c2am", few_glyphs, steps).changed(mixed), falling, 64, tmp_path, monkeypatch)


@pytest.mark.slow
def test_forest_with_a_visual_tree_and_masks_of_parents(few_glyphs, tmp_path, monkeypatch):
    loop.train(one_stage("softmax", few_glyphs, 2), tmp_path / "baseline")
    masks = {"model.mask_head.class_agnostic": False, "model.mask_head.geometric": True}
    trees = {"loss.visual": str(tmp_path / "baseline"), "model.rpn.resampling_ious": (0.9, 0.8, 0.7)}
    same_on_eight_devices(one_stage("forest", few_glyphs, 6).changed(masks | trees), tmp_path, monkeypatch)
    arrays, _ = weights_of_workdir(tmp_path / "8")
    assert sum(name.endswith("visual_parent") for name in arrays) == 1
