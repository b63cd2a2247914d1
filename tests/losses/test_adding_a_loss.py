"""The example of docs/adding_a_loss.md runs, and trains a detector that knows nothing of it."""

import ast
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import random_batch, tiny_config

from c2am_jax.config import method
from c2am_jax.losses import make_classification
from c2am_jax.losses.methods import METHODS, method_parameters
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.models.functional import Detector
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.training.state import build_detector

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "adding_a_loss.md"
EXAMPLE, REGISTERING = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture
def registered(monkeypatch):
    """The example's own lines, then its registration, for one test."""
    scope = {"METHODS": dict(METHODS)}
    exec(compile(EXAMPLE, str(GUIDE), "exec"), scope)
    exec(compile(REGISTERING, str(GUIDE), "exec"), scope)
    monkeypatch.setitem(METHODS, "root_count", scope["METHODS"]["root_count"])


def test_the_example_is_one_short_file():
    assert len(EXAMPLE.splitlines()) < 60 and ast.get_docstring(ast.parse(EXAMPLE))


def test_its_parameters_become_the_experiment(registered):
    assert method_parameters("root_count") == {"power": 0.5}
    assert method("root_count", "root_count").loss.to_dict() == {"name": "root_count", "power": 0.5}


def test_rare_classes_weigh_more_until_they_are_seen_often(registered):
    counts = ClassStatistics(np.array([90.0, 10.0]), np.array([9.0, 1.0]), 10)
    chosen = make_classification("root_count", statistics=counts)
    features, labels = jax.numpy.zeros((4, 3)), jax.numpy.array([0, 1, 2, 1])
    args = jax.numpy.zeros((3, 3)), jax.numpy.zeros(3), labels, jax.numpy.array([1.0, 1.0, 1.0, 0.0])
    loss, state = chosen.loss(features, *args, chosen.init_state(2))
    np.testing.assert_allclose(loss[:3], np.log(3) / np.sqrt([0.9, 0.1, 1.0]), rtol=1e-5)
    np.testing.assert_array_equal(state["counts"], [91, 11, 101])


def test_the_detector_trains_with_it(registered):
    config = tiny_config(method="root_count")
    detector, loss_state = build_detector(config)
    inputs = preprocess(random_batch(2), (64, 64), mean=(120.0,) * 3, std=(60.0,) * 3)
    losses, new = compute(detector, inputs, loss_state)
    assert np.isfinite(float(losses["cls"])) and float(losses["cls"]) > 0
    assert float(new[0]["counts"].sum()) > float(loss_state[0]["counts"].sum())


def compute(detector: Detector, inputs, loss_state):
    """Losses and new state of one batch."""

    @jax.jit
    def run(detector):
        losses, _, new = detector.module().loss(inputs, None, loss_state)
        return losses, new

    return run(detector)
