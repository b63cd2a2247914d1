"""What FASA does after each epoch: it measures on images that never train."""

import json

import jax
import numpy as np
import optax
import pytest
from tiny import tiny_config

from c2am_jax.data.datasets import open_dataset
from c2am_jax.errors import UserError
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.training.held_out import epoch_end
from c2am_jax.training.loop import train
from c2am_jax.training.restore import restore
from c2am_jax.training.state import build_detector, class_statistics, init_state


def configured(folder, steps, held_out=0.3):
    data = {"data.name": "small", "data.dir": str(folder), "data.held_out": held_out}
    train = {"train.batch_size": 8, "train.steps": steps, "train.checkpoint_every": 6, "train.eval_every": 0}
    train |= {"train.warmup_steps": 0, "train.lr_steps": (100,)}  # the same rate whatever the length
    return tiny_config(method="fasa").changed(data | train)


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_epochs_are_counted_measured_and_resumed(glyph_folder, tmp_path):
    config, workdir, parts = configured(glyph_folder, 7), tmp_path / "whole", tmp_path / "parts"
    train(config, workdir)  # three steps to an epoch
    (state,) = restore(workdir, 7, experiment=config).loss_state
    assert int(state["epoch"]) == 2 and (np.asarray(state["held_out"]) > 0).sum() > 3
    assert np.isfinite(losses(workdir)).all()
    train(configured(glyph_folder, 6), parts)  # ends with an epoch: its measurement is saved
    train(config, parts)
    assert losses(parts) == losses(workdir)
    for a, b in zip(
        jax.tree.leaves(restore(parts, 7, experiment=config).loss_state[0]), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_method_that_measures_nothing_needs_no_images(glyph_folder):
    config = tiny_config(method="pcb", data__name="small", data__dir=str(glyph_folder))
    detector, loss_state = build_detector(config)
    mesh = data_mesh(jax.devices()[:1])
    state = jax.device_put(init_state(detector, loss_state, optax.identity()), replicated(mesh))
    finish = epoch_end(config, detector, open_dataset(config.data, "train"), mesh)
    assert int(finish(finish(state)).loss_state[0]["epoch"]) == 2


def test_eight_devices_measure_what_one_does(glyph_folder):
    config = configured(glyph_folder, 2)
    dataset, after = open_dataset(config.data, "train"), []
    detector, loss_state = build_detector(config, class_statistics(dataset))
    start = init_state(detector, loss_state, optax.identity())
    for devices in (1, 8):
        mesh = data_mesh(jax.devices()[:devices])
        state = epoch_end(config, detector, dataset, mesh)(jax.device_put(start, replicated(mesh)))
        after.append(state.loss_state[0])
    assert int(after[0]["epoch"]) == 1 and (np.asarray(after[0]["held_out"]) > 0).sum() > 3
    for name in ("held_out", "chance"):
        np.testing.assert_allclose(after[1][name], after[0][name], rtol=1e-4, err_msg=name)


def test_nothing_held_out_is_one_line(glyph_folder, tmp_path):
    with pytest.raises(UserError, match=r"loss fasa measures on held-out.*config\.data\.held_out.*24 images"):
        train(configured(glyph_folder, 2, held_out=0.0), tmp_path)
