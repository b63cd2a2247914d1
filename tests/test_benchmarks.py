"""Benchmarks run, and print lines of json with what their docs name."""

import json
import sys

import jax
import pytest

from benchmarks import gpu_check, methods, predict, train_step
from c2am_jax.mesh import data_mesh
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.models.rpn import RPNHead


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


def test_the_gpu_check_says_slow_only_where_float32_is_far_behind(monkeypatch, capsys):
    small = ["--updates", "64", "--rois", "4", "--size", "64", "64", "--repeats", "1"]
    for seconds, status in (([2e-3], 0), ([2e-1], 1)):
        given = iter([seconds, [1e-3], *[[1e-3]] * 4])
        monkeypatch.setattr(gpu_check, "seconds_of", lambda call, repeats, given=given: next(given))
        assert gpu_check.main(small) == status
        captured = capsys.readouterr()
        found = [json.loads(line) for line in captured.out.splitlines()]
        assert [line.get("check") for line in found] == [None, "scatter-add", "roi_align", "roi_align"]
        assert found[1]["slow"] == bool(status) and found[2]["largest_relative_difference"] < 1e-5
        assert ("SLOW" in captured.err) == bool(status)
