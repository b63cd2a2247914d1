"""The benchmark of the methods prints one line with what its docs name."""

import json
import sys

from benchmarks import methods


def test_one_json_line(monkeypatch, capsys):
    small = ["--rois", "16", "--features", "8", "--classes", "12", "--repeats", "2", "--step_s", "0.5"]
    monkeypatch.setattr(sys, "argv", ["methods", *small, "--methods", "eql", "gol", "fasa", "lws"])
    methods.main()
    line = json.loads(capsys.readouterr().out)
    assert list(line["ms"]) == ["softmax", "eql", "gol", "fasa", "lws"] and line["of_softmax"]["softmax"] == 1.0
    assert line["of_step_percent"]["softmax"] == 0.0 and min(line["ms"].values()) > 0
