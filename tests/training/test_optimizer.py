"""The schedule and the order of decay, momentum and learning rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.config import lvis
from c2am_jax.experiment import TrainSettings
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule


def test_the_papers_schedule():
    train = lvis("x", "c2am").train
    rate = Schedule(train, 1000).rate
    assert float(rate(0)) == pytest.approx(0.02 * 0.001)
    assert float(rate(499)) == pytest.approx(0.02)
    assert [float(rate(s)) for s in (15_999, 16_000, 21_999, 22_000)] == pytest.approx([0.02, 0.002, 0.002, 0.0002])
    assert Schedule(train, 1000).length == 24_000


def test_learning_rate_grows_with_the_batch_and_steps_win_over_epochs():
    train = TrainSettings(batch_size=8, steps=30, lr_drops=())
    assert float(Schedule(train, 1000).rate(5000)) == pytest.approx(0.01)
    assert Schedule(train, 1000).length == 30


def test_updates_equal_the_reference_sgd():
    train = TrainSettings(warmup_steps=0, base_lr=0.1, batch_size=16, weight_decay=0.01)
    optimizer = make_optimizer(train, Schedule(train, 1000).rate)
    p = np.array([1.0, -2.0])
    state, buffer, ours = optimizer.init({"p": jnp.asarray(p)}), np.zeros(2), {"p": jnp.asarray(p)}
    for gradient in ([0.5, 0.1], [-0.2, 0.3], [0.0, 0.0]):
        updates, state = optimizer.update({"p": jnp.asarray(gradient)}, state, ours)
        ours = {"p": ours["p"] + updates["p"]}
        buffer = 0.9 * buffer + np.asarray(gradient) + 0.01 * p
        p = p - 0.1 * buffer
        np.testing.assert_allclose(ours["p"], p, rtol=1e-6)
