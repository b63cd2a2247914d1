"""A checkpoint evaluated through a calibration: what is read from where, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.data.datasets import open_dataset
from c2am_jax.errors import UserError
from c2am_jax.losses.calibration import fracal_scores, logn_logits, norcal_scores
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.training import checkpoint_evaluation, logit_statistics
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.loop import train
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.restore import restore
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state


@pytest.fixture(scope="module")
def run(glyph_folder, tmp_path_factory):
    """Config and workdir of an untrained detector, saved as step 0."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny_config(method="softmax", data__name="small", data__dir=str(glyph_folder), eval__batch_size=8)
    detector, loss_state = build_detector(config)
    detector.params["roi_head.bbox_head.fc_cls.kernel"] *= 100  # so that classes score differently
    schedule = config.train
    state = init_state(detector, loss_state, make_optimizer(schedule, Schedule(schedule, 1).rate))
    with Checkpoints(workdir, experiment=config) as checkpoints:
        checkpoints.save(jax.device_put(state, replicated(data_mesh())), 0)
    (workdir / "config.json").write_text(json.dumps(config.as_dict()))
    return config, workdir


def test_the_best_checkpoint_is_evaluated_by_its_name(run, tmp_path, monkeypatch):
    """Beside a newer one of other weights; its results go where those of its step do."""
    config, seen = run[0], []
    state = restore(run[1])
    kernel = "roi_head.bbox_head.fc_cls.kernel"
    (tmp_path / "config.json").write_text(json.dumps(config.as_dict()))
    for name, step, factor in (("best", 3, 2.0), ("checkpoints", 5, 1.0)):
        params = {**state.params, kernel: state.params[kernel] * factor}
        saved = dataclasses.replace(state, step=jax.numpy.full_like(state.step, step), params=params)
        with Checkpoints(tmp_path, experiment=config, name=name) as checkpoints:
            checkpoints.save(saved, step)

    def evaluate(config, detector, workdir, step, *, folder, **others):
        seen.append((step, folder.name, np.asarray(detector.arrays[kernel])))
        return {}

    monkeypatch.setattr(checkpoint_evaluation, "evaluate", evaluate)
    for step in ("best", None):
        checkpoint_evaluation.evaluate_checkpoint(config, tmp_path, step)
    assert [entry[:2] for entry in seen] == [(3, "3"), (5, "5")]
    np.testing.assert_array_equal(seen[0][2], 2 * seen[1][2])
    with pytest.raises(UserError, match="best: no checkpoint there; a run has one when it evaluates while it trains"):
        checkpoint_evaluation.evaluate_checkpoint(config, run[1], "best")


def calibrated_method(run, monkeypatch, name):
    """The method that the evaluation of the checkpoint scores with, and the name of its folder."""
    (config, workdir), seen = run, []
    config = config.changed({"calibration.name": name})

    def evaluate(config, detector, workdir, step, *, folder, **others):
        seen.append((detector.module().roi_head.classification, folder.name))
        return {}

    monkeypatch.setattr(checkpoint_evaluation, "evaluate", evaluate)
    checkpoint_evaluation.evaluate_checkpoint(config, workdir)
    return seen[0]


LOGITS = jax.random.normal(jax.random.key(0), (3, 101))


def test_counts_and_dimensions_are_those_of_the_training_set(run, monkeypatch):
    dataset = open_dataset(run[0].data, "train")
    counts = np.asarray(dataset.categories.image_count, np.float32)
    norcal, folder = calibrated_method(run, monkeypatch, "norcal")
    np.testing.assert_allclose(norcal.activate(LOGITS), norcal_scores(LOGITS, jax.numpy.asarray(counts), gamma=0.6))
    assert folder == "0-norcal"
    fracal, folder = calibrated_method(run, monkeypatch, "fracal")
    dimension = checkpoint_evaluation.fractal.of_annotations(dataset.annotations_path, dataset.categories.ids)
    expected = fracal_scores(LOGITS, *map(jax.numpy.float32, (counts / len(dataset), dimension)), power=2.0)
    np.testing.assert_allclose(fracal.activate(LOGITS), expected, rtol=1e-5)
    assert dimension.max() > 1.2 and folder == "0-fracal"  # heads of the long tail fill the image


def test_logn_wants_statistics_first_and_then_uses_them(run, monkeypatch):
    config, workdir = run
    with pytest.raises(UserError, match="gather_logits"):
        calibrated_method(run, monkeypatch, "logn")
    path = checkpoint_evaluation.gather_logits(config, workdir, None, 8)
    found = logit_statistics.read(path)
    assert path == workdir / "logit_statistics" / "0.npz" and found.mean.shape == (101,) and (found.std > 0).all()
    method, folder = calibrated_method(run, monkeypatch, "logn")
    mean, std = (jax.numpy.asarray(x, np.float32) for x in (found.mean, found.std))
    expected = jax.nn.softmax(logn_logits(LOGITS, mean, std))
    np.testing.assert_allclose(method.activate(LOGITS), expected, rtol=1e-5)
    assert folder == "0-logn"


def test_statistics_do_not_depend_on_the_number_of_devices(run):
    config, workdir = run
    detector = restore(workdir, experiment=config).detector
    one, eight = (
        logit_statistics.gather(config, detector, data_mesh(jax.devices()[:devices]), images=8) for devices in (1, 8)
    )
    np.testing.assert_allclose(one.mean, eight.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.std, eight.std, rtol=1e-3)


def test_training_does_not_ignore_a_calibration(run, tmp_path):
    config = run[0].changed({"calibration.name": "norcal"})
    with pytest.raises(UserError, match="eval.py"):
        train(config, tmp_path)


def test_a_calibration_that_does_not_go_with_the_loss_is_one_line(run, tmp_path):
    config = tiny_config(method="eql", data=run[0].data.as_dict(), calibration__name="norcal")
    with pytest.raises(UserError, match="softmax"):
        build_detector(config, calibrate=checkpoint_evaluation._calibration(config, tmp_path, 0))
