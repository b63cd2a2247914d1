"""The files of docs/adding_a_loss.md, outside the package: they train, resume, are evaluated and are a table row."""

import ast
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import draw_glyphs

from c2am_jax.config import load_experiment
from c2am_jax.experiments.rows import rows_of
from c2am_jax.experiments.table import main, planned_run
from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.training import loop
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.restore import load_detector, restore

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "adding_a_loss.md"
EXAMPLE, CONFIG = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
NAME = "my_package.root_count:root_count"
TINY = f"""
from c2am_jax.config import tree
from tiny import tiny_config

def get_config(argument):
    assert argument == "glyphs"
    return tree(tiny_config("tiny", "{NAME}"))
"""


@pytest.fixture
def my_package(tmp_path, monkeypatch):
    """The guide's files in a folder on Python's path."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "root_count.py").write_text(EXAMPLE)
    (folder / "config.py").write_text(CONFIG)
    (folder / "tiny.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_example_is_one_short_file():
    assert len(EXAMPLE.splitlines()) < 60 and ast.get_docstring(ast.parse(EXAMPLE))


@pytest.mark.parametrize("argument", ["", ":glyphs"])
def test_its_parameters_become_the_experiment(my_package, argument):
    experiment = load_experiment(f"{my_package}/config.py{argument}")
    assert experiment.loss.as_dict() == {"name": NAME, "power": 0.5} and experiment.name.endswith("_root_count")


def test_rare_classes_weigh_more_until_they_are_seen_often(my_package):
    counts = ClassStatistics(np.array([90.0, 10.0]), np.array([9.0, 1.0]), 10)
    method = make_classification(NAME, statistics=counts)
    labels, weights = jax.numpy.array([0, 1, 2, 1]), jax.numpy.array([1.0, 1.0, 1.0, 0.0])
    head = Head(jax.numpy.zeros((3, 3)), jax.numpy.zeros(3))
    loss, state = method.loss(Samples(jax.numpy.zeros((4, 3)), labels, weights), head, method.init_state(2, 3))
    np.testing.assert_allclose(loss[:3], np.log(3) / np.sqrt([0.9, 0.1, 1.0]), rtol=1e-5)
    np.testing.assert_array_equal(state["counts"], [91, 11, 101])


@pytest.mark.usefixtures("compile_quickly")
def test_it_trains_resumes_is_evaluated_and_is_a_row_of_a_table(my_package, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    data = {"data.dir": str(draw_glyphs(tmp_path / "data", train_images=24, head=20)), "data.name": "small"}
    given = {**data, "data.workers": 1, "train.steps": 20, "train.batch_size": 8}
    (row,) = rows_of("2", "glyphs", [f"{my_package}/tiny.py"])
    run = planned_run("2", row, "glyphs", 0, tmp_path / "out", given, {})
    loop.train(run.experiment().changed({"train.steps": 10, "train.eval_every": 0}), run.workdir)
    loop.train(run.experiment(), run.workdir)

    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]  # the last one is of the evaluation
    assert [line["step"] for line in lines] == list(range(1, 21))
    last = restore(run.workdir)
    with Checkpoints(run.workdir) as saved:
        first = saved.load(last, 10)
    seen = sum(line["roi/sampled"] for line in lines[10:])
    assert float(last.loss_state[0]["counts"].sum() - first.loss_state[0]["counts"].sum()) == seen > 0
    assert load_detector(run.workdir).step == 20  # what export and prediction read

    overrides = [text for key, value in given.items() for text in ("--override", f"{key}={value}")]
    assert main(["2", "--rows", row.key, "--out", str(tmp_path / "out"), *overrides]) == 0
    assert "| tiny | 1 of 1 |" in capsys.readouterr().out
    assert not (run.workdir / "train.log").exists()  # the table found it finished
