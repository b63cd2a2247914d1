"""Benchmarks run, and print lines of json with what their docs name."""

import json
import sys

import jax
import pytest

from benchmarks import methods, predict, train_step
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.models.rpn import RPNHead
from c2am_jax.training.step import data_mesh


def lines(monkeypatch, capsys, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_methods(monkeypatch, capsys):
    small = ["--rois", "16", "--features", "8", "--classes", "12", "--repeats", "2", "--step_s", "0.5"]
    (line,) = lines(monkeypatch, capsys, methods.main, *small, "--methods", "eql", "gol", "fasa", "lws")
    assert list(line["ms"]) == ["softmax", "eql", "gol", "fasa", "lws"] and line["of_softmax"]["softmax"] == 1.0
    assert line["of_step_percent"]["softmax"] == 0.0 and min(line["ms"].values()) > 0


@pytest.mark.usefixtures("compile_quickly")
@pytest.mark.parametrize("benchmark", [train_step, predict])
def test_a_detector_at_work(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(RPNHead, "propose", RPNHead.propose)  # what the benchmarks replace comes back
    monkeypatch.setattr(RoIHead, "classify", RoIHead.classify)
    monkeypatch.setattr(benchmark, "data_mesh", lambda: data_mesh(jax.devices()[:1]))
    small = ["--config", "configs/glyphs_ce.py", "--size", "64", "64", "--batch", "2", "--steps", "1"]
    line = lines(monkeypatch, capsys, benchmark.main, *small)[-1]
    assert line["median_s"] > 0 and line["size"] == [64, 64]
    assert line["positive_rois"] == [2 * 12] if benchmark is train_step else line["detections"] == 2 * 100
