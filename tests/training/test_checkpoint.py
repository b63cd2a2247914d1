"""Saving, keeping, loading, and saying what does not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tiny import tiny_config

from c2am_jax.errors import UserError
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.training.checkpoint import BestCheckpoint, Checkpoints, compare_config, write_config
from c2am_jax.training.initial import load, weights_of_workdir
from c2am_jax.training.metrics import MetricWriter
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state
from c2am_jax.weights.names import state_dict


@pytest.fixture(scope="module")
def state():
    config = tiny_config()
    detector, loss_state = build_detector(config)
    optimizer = make_optimizer(config.train, Schedule(config.train, 100).rate)
    return jax.device_put(init_state(detector, loss_state, optimizer), replicated(data_mesh(jax.devices()[:1])))


def test_the_newest_are_kept_and_come_back_bit_for_bit(state, tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state, step)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps == [2, 3]
        found = checkpoints.load(state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_carries_its_config_and_versions(state, tmp_path):
    with Checkpoints(tmp_path, experiment=tiny_config()) as checkpoints:
        checkpoints.save(state, 1)
    with Checkpoints(tmp_path) as checkpoints:
        stored = checkpoints.metadata(1)
    assert stored["config"]["loss"]["name"] == "c2am"
    assert stored["versions"]["jax"] == jax.__version__


def test_steps_that_reuse_the_memory_of_a_state_do_not_reach_its_save(tmp_path):
    advance = jax.jit(lambda arrays: jax.tree.map(lambda a: a + 1, arrays), donate_argnums=0)
    sharding = replicated(data_mesh())
    arrays = advance(jax.device_put({str(i): jnp.full(1 << 19, i, jnp.float32) for i in range(8)}, sharding))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(arrays, 1)
        for _ in range(5):
            arrays = advance(arrays)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.load(arrays)
    assert [float(found[str(i)].min()) for i in range(8)] == [i + 1 for i in range(8)]
    assert [float(found[str(i)].max()) for i in range(8)] == [i + 1 for i in range(8)]


def test_a_step_that_does_not_exist_lists_those_that_do(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            UserError,
            match=r"no checkpoint yet: a run has one after its first save \(config.train.checkpoint_every steps\)",
        ):
            checkpoints.load(state)
        checkpoints.save(state, 4)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="no checkpoint of step 9; there are: 4"):
        checkpoints.load(state, 9)


def test_a_workdir_of_another_model_is_refused_and_a_longer_schedule_is_logged(tmp_path, caplog):
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    write_config(tmp_path, tiny_config())
    before, longer = tiny_config().train.epochs, tiny_config(train__epochs=99, model__test__score_threshold=0.05)
    with caplog.at_level("INFO", logger="c2am_jax"):
        write_config(tmp_path, longer, compare_config(tmp_path, longer))
    assert f"train.epochs: {before} there, 99 now" in caplog.text and "score_threshold" in caplog.text
    assert json.loads((tmp_path / "config.json").read_text())["train"]["epochs"] == 99
    other = tiny_config(loss__alpha=0.1, model__backbone__depth=18)
    with pytest.raises(UserError, match=r"loss.alpha: 0.5 there, 0.1 now; model.backbone.depth: 10 there, 18 now"):
        compare_config(tmp_path, other)


def test_a_run_older_than_a_setting_of_the_detector_had_its_default(tmp_path):
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    write_config(tmp_path, tiny_config())
    old = json.loads((tmp_path / "config.json").read_text())
    del old["model"]["mask_head"]["predictor"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert compare_config(tmp_path, tiny_config()) == []
    other = tiny_config(model__mask_head__predictor="normed")
    with pytest.raises(UserError, match="model.mask_head.predictor: 'plain' there, 'normed' now"):
        compare_config(tmp_path, other)


def test_a_run_from_before_a_setting_existed_goes_on_while_the_setting_is_off(tmp_path):
    config = tiny_config()
    old = config.as_json()
    del old["train"]["trainable"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    compare_config(tmp_path, config)
    config = tiny_config(train__trainable=("*.fc_cls.*",))
    with pytest.raises(UserError, match=r"train\.trainable: \[\] there, \['\*\.fc_cls\.\*'\] now"):
        compare_config(tmp_path, config)


def test_a_workdir_that_never_saved_takes_any_config(tmp_path):
    write_config(tmp_path, tiny_config())
    other = tiny_config(method="softmax")
    write_config(tmp_path, other, compare_config(tmp_path, other))
    assert json.loads((tmp_path / "config.json").read_text())["loss"]["name"] == "softmax"


def test_initial_weights_come_from_files_and_workdirs(state, tmp_path):
    backbone = {n: np.asarray(v) for n, v in state.detector.arrays.items() if n.startswith("backbone.")}
    bare = {name.removeprefix("backbone."): value for name, value in state_dict(backbone).items()}
    bare["layer1.0.conv1.weight"] = np.full((8, 8, 3, 3), 0.5, np.float32)
    np.savez(tmp_path / "weights.npz", **bare, **{"fc.weight": np.zeros((3, 3))})
    params = load(str(tmp_path / "weights.npz"), state.detector).detector.params
    assert (params["backbone.layer1.0.conv1.kernel"] == 0.5).all()
    np.testing.assert_array_equal(params["neck.fpn_convs.0.conv.kernel"], state.params["neck.fpn_convs.0.conv.kernel"])

    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(state, 1)
    zeros = jax.tree.map(np.zeros_like, state.detector)
    found = load(str(tmp_path / "run"), zeros).detector
    for name, value in state.detector.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_broken_initial_weights_are_named(state, tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(UserError, match="bad.npz"):
        load(str(tmp_path / "bad.npz"), state.detector)


def test_metric_lines_behind_the_restored_step_are_dropped(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    MetricWriter(tmp_path, start_step=2).close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def saved(state, folder, steps=(1, 2)):
    with Checkpoints(folder, experiment=tiny_config()) as checkpoints:
        for step in steps:
            checkpoints.save(state, step)


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_taken(state, tmp_path, caplog, harm):
    saved(state, tmp_path)
    file = largest_file(tmp_path / "checkpoints" / "2")
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    elif harm == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with Checkpoints(tmp_path, experiment=tiny_config()) as checkpoints:
        with pytest.raises(UserError, match=r"2 is damaged \(.*\); checkpoints there: 1, 2"):
            checkpoints.load(state, 2)
        found = checkpoints.load(state)
        assert "checkpoints/2 is damaged" in caplog.text and checkpoints.steps == [1]
        checkpoints.save(state, 2)  # its place is free again
    np.testing.assert_array_equal(jax.tree.leaves(found)[1], jax.tree.leaves(state)[1])
    with Checkpoints(tmp_path, experiment=tiny_config()) as checkpoints:
        assert checkpoints.steps == [1, 2]
        checkpoints.load(state, 2)


def flip_a_byte(file, rng):
    content = bytearray(file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)


def test_a_flipped_byte_in_any_file_is_refused_or_harmless_for_readers_of_weights(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"layer{i}.kernel": jnp.asarray(rng.normal(size=(16, 16)), jnp.float32) for i in range(3)}
    saved({"params": arrays, "rest": {"mean": jnp.ones(4)}}, tmp_path, steps=(7,))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.relative_to(tmp_path).parts[0] for p in files} == {"checkpoints", "checkpoints_checksums"}
    whole, refused = {file: file.read_bytes() for file in files}, 0
    for file in files * 3:
        flip_a_byte(file, rng) if whole[file] else file.write_bytes(b"x")
        try:
            found, step = weights_of_workdir(tmp_path)
        except UserError as error:
            refused += 1
            assert "checkpoints/7 is damaged" in str(error) and "\n" not in str(error), error
        else:
            assert step == 7 and all((found[name] == value).all() for name, value in arrays.items()), file
        file.write_bytes(whole[file])
    assert refused > 2 * len(files)
    assert weights_of_workdir(tmp_path)[1] == 7


def test_starting_from_a_damaged_run_is_refused(state, tmp_path):
    saved(state, tmp_path)
    flip_a_byte(largest_file(tmp_path / "checkpoints" / "2"), np.random.default_rng(0))
    with pytest.raises(UserError, match=r"checkpoints/2 is damaged \(.* differs .*\); checkpoints there: 1, 2"):
        load(str(tmp_path), state.detector)
    load(str(tmp_path / "checkpoints" / "1"), state.detector)


@pytest.mark.parametrize("config", [None, tiny_config()], ids=["a reader", "a run"])
def test_when_no_checkpoint_is_whole_the_message_says_so(state, tmp_path, config):
    saved(state, tmp_path, steps=(7,))
    largest_file(tmp_path / "checkpoints" / "7").unlink()
    with Checkpoints(tmp_path, experiment=config) as checkpoints:
        with pytest.raises(UserError, match=r"no checkpoint is whole; damaged: 7 \(.* differs from what was saved\)"):
            checkpoints.load(state)


def test_a_reader_leaves_damaged_checkpoints_where_they_are(state, tmp_path):
    saved(state, tmp_path)
    largest_file(tmp_path / "checkpoints" / "2").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.load(state)
        assert checkpoints.steps == [1, 2]


def test_checksums_go_with_their_checkpoints(state, tmp_path):
    with Checkpoints(tmp_path, keep=2, experiment=tiny_config()) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(state, step)
    assert sorted(p.stem for p in (tmp_path / "checkpoints_checksums").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("when", ["save_async", "close"])
def test_a_full_disk_is_one_line_and_what_was_saved_stays(state, tmp_path, monkeypatch, when):
    saved(state, tmp_path, steps=(1,))

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nand more")

    with pytest.raises(UserError, match=r"could not be saved \(RESOURCE_EXHAUSTED: No space .*there are: 1"):
        with Checkpoints(tmp_path, experiment=tiny_config()) as checkpoints:
            monkeypatch.setattr(ocp.training.Checkpointer, when, full)
            checkpoints.save(state, 2)


def test_the_best_evaluation_keeps_its_checkpoint(state, tmp_path):
    for step, value in ((1, 0.2), (2, 0.5), (3, 0.4)):
        with BestCheckpoint(tmp_path, tiny_config()) as best:
            best.offer(state, step, {"bbox/AP": 0.9, "segm/AP": value})
    with Checkpoints(tmp_path, name="best") as checkpoints:
        assert checkpoints.steps == [2]
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 2, "value": 0.5}


def test_a_checkpoint_of_eight_devices_goes_on_with_one_and_four(state, tmp_path):
    wide = jax.device_put(state, replicated(data_mesh()))
    saved(wide, tmp_path, steps=(1,))
    for devices in (1, 4):
        like = jax.device_put(state, replicated(data_mesh(jax.devices()[:devices])))
        with Checkpoints(tmp_path) as checkpoints:
            found = checkpoints.load(like)
        leaf = jax.tree.leaves(found.params)[0]
        assert len(leaf.sharding.device_set) == devices
        np.testing.assert_array_equal(leaf, jax.tree.leaves(state.params)[0])
