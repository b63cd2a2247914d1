"""A second stage: it starts from a run and trains what it should. test_methods.py trains each."""

import json

import jax
import numpy as np
import pytest
from tiny import random_batch, second_stage_config, tiny_config

from c2am_jax.config import load_experiment
from c2am_jax.errors import UserError
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.mesh import batch_sharding, data_mesh, replicated
from c2am_jax.training.checkpoint import Checkpoints, compare_config, write_config
from c2am_jax.training.initial import load
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.restore import experiment_of, first_state, restore
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state
from c2am_jax.training.step import make_train_step

KERNEL = "roi_head.bbox_head.fc_cls.kernel"
CLASSIFIER = {KERNEL, "roi_head.bbox_head.fc_cls.bias"}
EXTRA = "roi_head.bbox_head.cls_extra."
TRAINS = {
    "crt": CLASSIFIER,
    "lws": {EXTRA + "factor"},
    "bags": CLASSIFIER,
    "disalign": {EXTRA + name for name in ("magnitude", "margin", "direction", "offset")},
    "balms": CLASSIFIER,
    "acsl_second_stage": CLASSIFIER,
}
STATISTICS = ClassStatistics(2000.0 / np.arange(1, 101) ** 1.5, np.linspace(300, 1, 100), 400)


LOCE = ("fc_cls", "fc_reg", "rpn_head", "roi_head.mask_head")


def test_recipes_name_what_trains():
    for name, expected in TRAINS.items():
        config = second_stage_config(name)
        detector, _ = build_detector(config, STATISTICS)
        assert set(detector.params) == expected and KERNEL in detector.arrays
    detector, _ = build_detector(second_stage_config("loce"))
    assert all(any(part in name for part in LOCE) for name in detector.params)
    assert not any(part in name for part in LOCE for name in detector.rest)


def test_lvis_recipes_drop_the_rate_at_their_steps():
    schedule = load_experiment("methods/disalign:v05").train
    rate = Schedule(schedule, 3000).rate
    assert schedule.steps == 4500 and float(rate(3999)) == pytest.approx(0.02)
    assert float(rate(4001)) == pytest.approx(0.002)
    by_epoch = Schedule(load_experiment("methods/bags").train, 1000).rate
    assert float(by_epoch(7999)) == pytest.approx(0.01) and float(by_epoch(8001)) == pytest.approx(0.001)


@pytest.mark.parametrize(
    "name", ["disalign", *(pytest.param(n, marks=pytest.mark.slow) for n in (*TRAINS, "loce") if n != "disalign")]
)
def test_steps_move_what_trains_and_leave_all_else_bitwise(name):
    config = second_stage_config(name, base_lr=0.2)
    schedule, mesh = config.train, data_mesh(jax.devices()[:2])
    detector, loss_state = build_detector(config, STATISTICS)
    optimizer = make_optimizer(schedule, Schedule(schedule, 100).rate)
    step = make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0)
    before = {n: np.asarray(value) for n, value in detector.arrays.items()}
    state = jax.device_put(init_state(detector, loss_state, optimizer), replicated(mesh))
    for number in range(2):
        batch = jax.device_put(random_batch(2, seed=number), batch_sharding(mesh))
        state, metrics = step(state, batch, (64, 64))
        assert np.isfinite(float(metrics["loss"])) and float(metrics["grad_norm"]) > 0
    for n, value in state.rest.items():
        np.testing.assert_array_equal(value, before[n], err_msg=n)
    moved = {n for n, value in state.params.items() if not np.array_equal(value, before[n])}
    assert TRAINS.get(name, CLASSIFIER) <= moved


def save_first_stage(workdir):
    """A run of the baseline with a newest and a best checkpoint that differ in the classifier's bias."""
    config = tiny_config(method="softmax")
    detector, loss_state = build_detector(config)
    schedule = config.train
    optimizer = make_optimizer(schedule, Schedule(schedule, 10).rate)
    bias = "roi_head.bbox_head.fc_cls.bias"
    for folder, step, value in (("checkpoints", 1, 1.0), ("checkpoints", 2, 2.0), ("best", 1, 5.0)):
        moved = detector.with_arrays({bias: detector.params[bias] + value})
        state = init_state(moved, loss_state, optimizer)
        with Checkpoints(workdir, experiment=config, name=folder) as checkpoints:
            checkpoints.save(jax.device_put(state, replicated(data_mesh(jax.devices()[:1]))), step)
    return detector.params


def test_a_second_stage_starts_from_any_checkpoint_of_a_run(tmp_path):
    first = save_first_stage(tmp_path)
    detector, _ = build_detector(second_stage_config("lws", seed=9), STATISTICS)
    starts = {"": 2.0, "checkpoints": 2.0, "checkpoints/1": 1.0, "best": 5.0}
    for part, expected in starts.items():
        new = load(str(tmp_path / part), detector).detector
        np.testing.assert_array_equal(new.rest["roi_head.bbox_head.fc_cls.bias"], expected)
        np.testing.assert_array_equal(new.rest[KERNEL], first[KERNEL])
        np.testing.assert_array_equal(new.params[EXTRA + "factor"], 1.0)


def test_a_classifier_starts_anew_only_where_the_config_says_so(tmp_path):
    first = save_first_stage(tmp_path)
    detector, _ = build_detector(second_stage_config("crt", seed=9), STATISTICS)
    new = load(str(tmp_path), detector, reset=("*.fc_cls.*",)).detector
    np.testing.assert_array_equal(new.params[KERNEL], detector.params[KERNEL])
    taken = load(str(tmp_path), detector).detector
    np.testing.assert_array_equal(taken.params[KERNEL], first[KERNEL])
    detector, _ = build_detector(second_stage_config("bags"), STATISTICS)  # another shape
    with pytest.raises(UserError, match="detector of other classes"):
        load(str(tmp_path), detector)
    new = load(str(tmp_path), detector, reset=("*.fc_cls.*",)).detector
    np.testing.assert_array_equal(new.params[KERNEL], detector.params[KERNEL])
    np.testing.assert_array_equal(new.rest[EXTRA + "group"], detector.rest[EXTRA + "group"])
    with pytest.raises(UserError, match=r"config\.train\.reset: '\*\.fc_clas' matches no array"):
        load(str(tmp_path), detector, reset=("*.fc_clas",))


@pytest.mark.parametrize("method", ["loce", "fasa"])
def test_a_run_from_when_memories_were_told_their_width_goes_on(tmp_path, method):
    config = tiny_config(method=method)
    mesh = data_mesh(jax.devices()[:1])
    state = first_state(config, mesh)
    assert any(leaf.shape[-1:] == (config.model.box_head.fc_channels,) for leaf in jax.tree.leaves(state.loss_state))
    with Checkpoints(tmp_path, experiment=config) as checkpoints:
        checkpoints.save(state, 3)
    tree = config.as_json()
    tree["loss"]["features"] = 16
    (tmp_path / "config.json").write_text(json.dumps(tree))

    assert experiment_of(tmp_path) == config  # export and prediction
    for given in (None, config):  # as export and eval.py read it
        found = restore(tmp_path, experiment=given, mesh=mesh)
        jax.tree.map(np.testing.assert_array_equal, found.loss_state, state.loss_state)
    write_config(tmp_path, config, compare_config(tmp_path, config))  # as a run that resumes
    assert "features" not in json.loads((tmp_path / "config.json").read_text())["loss"]


def test_a_pattern_without_a_parameter_is_one_line():
    config = second_stage_config("crt", trainable=("*.fc_clas.*",))
    with pytest.raises(
        UserError, match=r"config: train\.trainable: '\*\.fc_clas\.\*' matches no array; the nearest are "
    ):
        build_detector(config)
