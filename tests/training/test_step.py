"""One training step: independent of the number of devices, frozen things stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import random_batch, tiny_config

from c2am_jax.mesh import batch_sharding, data_mesh, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state
from c2am_jax.training.step import make_train_step


def run(config, devices, steps=3, images=8, workdir=None, **options):
    mesh, schedule = data_mesh(jax.devices()[:devices]), config.train
    detector, loss_state = build_detector(config)
    optimizer = make_optimizer(schedule, Schedule(schedule, 100).rate)
    step = make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0, **options)
    state = jax.device_put(init_state(detector, loss_state, optimizer), replicated(mesh))
    if workdir is not None:
        with Checkpoints(workdir) as checkpoints:
            state = checkpoints.load(state)
    losses, first = [], int(state.step)
    for number in range(first, first + steps):
        batch = jax.device_put(random_batch(images, seed=number), batch_sharding(mesh))
        state, metrics = step(state, batch, (64, 64))
        losses.append({name: float(value) for name, value in metrics.items()})
    return losses, state


@functools.cache
def trained(devices, method, norm):
    """Five steps at a rate that lets no rounding grow."""
    config = tiny_config(method=method, model__backbone__norm=norm, train__base_lr=0.002)
    return run(config, devices, steps=5)


@pytest.mark.parametrize(
    ("method", "norm"),
    [
        ("c2am", "sync_bn"),
        pytest.param("c2am", "group_norm", marks=pytest.mark.slow),
        pytest.param("softmax", "frozen_bn", marks=pytest.mark.slow),
        pytest.param("seesaw", "group_norm", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(method, norm):
    (one, state_one), (eight, state_eight) = trained(1, method, norm), trained(8, method, norm)
    for a, b in zip(one, eight, strict=True):
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name
    for name, value in state_one.params.items():
        np.testing.assert_allclose(state_eight.params[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    if norm == "sync_bn":
        moved = [n for n, v in state_one.rest.items() if n.endswith(".mean") and float(jnp.abs(v).max()) > 0]
        assert len(moved) > 5


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_goes_on_alike_on_one_and_four(tmp_path):
    config = tiny_config(model__backbone__norm="group_norm", train__base_lr=0.002)
    _, state = run(config, 8, steps=3)
    with Checkpoints(tmp_path, experiment=config) as checkpoints:
        checkpoints.save(state, 3)
    losses = {n: run(config, n, steps=2, workdir=tmp_path)[0] for n in (8, 1, 4)}
    for devices in (1, 4):
        for expected, found in zip(losses[8], losses[devices], strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_metrics_hold_what_the_log_needs():
    (metrics, *_), _ = trained(1, "c2am", "sync_bn")
    expected = {"loss", "grad_norm", "margin/mean", "margin/max", "margin/wrapped"}
    expected |= {f"loss/{part}" for part in ("rpn_cls", "rpn_box", "cls", "box", "mask")}
    assert expected <= set(metrics)
    parts = sum(v for n, v in metrics.items() if n.startswith("loss/"))
    assert metrics["loss"] == pytest.approx(parts, rel=1e-5) and metrics["grad_norm"] > 0


def test_frozen_stages_and_statistics_do_not_move():
    config = tiny_config(model__backbone__norm="frozen_bn", model__backbone__frozen_stages=1)
    detector, _ = build_detector(config)
    before = {name: np.asarray(value) for name, value in detector.rest.items()}
    assert "backbone.layer1.0.conv1.kernel" in before and "backbone.layer2.0.conv1.kernel" in detector.params
    first = np.asarray(detector.params["backbone.layer2.0.conv1.kernel"])
    _, state = run(config, 1, steps=3, images=1)  # the first gradient of a residual branch is 0: so is its last scale
    for name, value in before.items():
        np.testing.assert_array_equal(state.rest[name], value, err_msg=name)
    assert not np.array_equal(state.params["backbone.layer2.0.conv1.kernel"], first)


@functools.cache
def one_step(norm="group_norm"):
    """Metrics and state of one step on one device with two images."""
    config = tiny_config(model__backbone__norm=norm)
    (metrics,), state = run(config, 1, steps=1, images=2)
    return metrics, state


def test_accumulated_parts_give_the_mean_of_their_gradients():
    """Two parts of one image are two devices with one image each, whose losses have the same normalisers."""
    (parts,), _ = run(tiny_config(), 1, steps=1, images=2, accumulate=2)
    whole, _ = one_step()
    for name in ("loss/rpn_cls", "loss/cls"):  # means over samples, of which each image has as many
        assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=0.1)


def test_bfloat16_trains_close_to_float32_with_float32_parameters():
    (half,), state = run(tiny_config(), 1, steps=1, images=2, compute_dtype="bfloat16")
    full, _ = one_step()
    assert {value.dtype for value in state.params.values()} == {jnp.dtype("float32")}
    assert half["loss"] == pytest.approx(full["loss"], rel=0.05) and half["loss"] != full["loss"]


@pytest.mark.parametrize("norm", ["group_norm", pytest.param("sync_bn", marks=pytest.mark.slow)])
def test_rematerialisation_changes_nothing(norm):
    config = tiny_config(model__backbone__norm=norm, model__backbone__remat=True)
    (again,), other = run(config, 1, steps=1, images=2)
    usual, state = one_step(norm)
    assert again["loss"] == pytest.approx(usual["loss"], rel=1e-6)
    for name, value in state.detector.arrays.items():
        np.testing.assert_allclose(other.detector.arrays[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


class Brightness(nnx.Module):
    """The smallest thing with a detector's `loss`."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(3))

    def loss(self, inputs, keys, loss_state, *, axis_name=None):
        value = jax.lax.pmean(jnp.square(inputs.image * self.weight[...]).mean(), axis_name)
        return {"brightness": value}, {}, loss_state


def test_a_bucket_is_compiled_once():
    compiled = []

    def note(name, duration, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    mesh, schedule = data_mesh(jax.devices()[:1]), tiny_config().train
    detector = Detector.of(Brightness())
    optimizer = make_optimizer(schedule, Schedule(schedule, 100).rate)
    step = make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0)
    state = jax.device_put(init_state(detector, {}, optimizer), replicated(mesh))
    batches = [jax.device_put(random_batch(2, seed=number), batch_sharding(mesh)) for number in range(6)]
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for batch, bucket in zip(batches, [(64, 64), (64, 96)] * 3, strict=True):
            state, _ = step(state, batch, bucket)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert len(compiled) == step._program._cache_size() == 2


def test_runs_with_other_seeds_share_a_program():
    config, mesh = tiny_config(), data_mesh(jax.devices()[:1])
    detector, loss_state = build_detector(config)
    optimizer = make_optimizer(config.train, Schedule(config.train, 100).rate)
    state, batch = init_state(detector, loss_state, optimizer), random_batch(2)
    steps = [
        make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=seed) for seed in (0, 7, 2**33 + 7)
    ]
    assert len({step.lower(state, batch, (64, 64)).as_text() for step in steps}) == 1
    loss = [float(step(jax.tree.map(jnp.copy, state), batch, (64, 64))[1]["loss"]) for step in steps]
    assert loss[0] != loss[1] == loss[2]


@pytest.mark.parametrize("method", ["softmax", "eql_v2", "fasa", "loce", "forest"])  # of each kind of state
def test_the_first_state_has_the_types_of_all_later_ones(method):
    """A step that returns other types than it takes compiles three times."""
    config = tiny_config(method=method)
    detector, loss_state = build_detector(config)
    schedule, mesh = config.train, data_mesh(jax.devices()[:1])
    optimizer = make_optimizer(schedule, Schedule(schedule, 100).rate)
    state = init_state(detector, loss_state, optimizer)
    step = make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0)

    def types(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    assert types(state) == types(jax.eval_shape(lambda s: step(s, random_batch(2), (64, 64))[0], state))
