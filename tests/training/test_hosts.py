"""Two processes run train.py together: the same losses, checkpoints and results as one; a dead one ends the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import SMALL_MODEL

from c2am_jax.errors import EXIT_STOPPED

ROOT = Path(__file__).resolve().parents[2]
SMALL = SMALL_MODEL | {
    "data.name": "small",
    "train.batch_size": 4,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
}


def start(workdir, data, devices, *, processes=1, process=0, port=0, logs=None, **settings):
    """One process of a run; `logs` is the folder of its output, by default the workdir's."""
    overrides = SMALL | {"data.dir": data} | settings
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    if processes > 1:
        flags += [f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process={process}"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    log = ((logs or workdir.parent) / f"{Path(workdir).name}_{process}.log").open("w")
    command = [sys.executable, "train.py", "--config=configs/glyphs_c2am.py", f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def start_two(workdir, data, **settings):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [start(workdir, data, 1, processes=2, process=i, port=port, **settings) for i in range(2)]


def losses(workdir):
    """Of each step; an evaluation has a line of its own."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def wait_for_step(workdir, step, process):
    while process.poll() is None:
        if (workdir / "metrics.jsonl").exists() and len(losses(workdir)) >= step:
            return
        time.sleep(0.1)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_and_stop_together(glyph_folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert start(one, glyph_folder, 2, **{"train.steps": 6}).wait(600) == 0
    first, second = start_two(two, glyph_folder, **{"train.steps": 6})
    assert (first.wait(600), second.wait(600)) == (0, 0)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    metrics = [json.loads((w / "eval" / "6" / "metrics.json").read_text()) for w in (one, two)]
    assert metrics[0].keys() == metrics[1].keys()
    detections = [json.loads((w / "eval" / "6" / "detections_segm.json").read_text()) for w in (one, two)]
    assert sorted(d["image_id"] for d in detections[0]) == sorted(d["image_id"] for d in detections[1])
    assert not list((two / "eval" / "6").glob("*.partial"))

    stopped = tmp_path / "stopped"
    processes = start_two(stopped, glyph_folder, **{"train.steps": 2000, "train.eval_every": 0})
    wait_for_step(stopped, 2, processes[0])
    processes[1].send_signal(signal.SIGTERM)  # the notice reaches one host only
    assert [p.wait(120) for p in processes] == [EXIT_STOPPED] * 2
    reached = len(losses(stopped))
    processes = start_two(stopped, glyph_folder, **{"train.steps": reached + 2, "train.eval_every": 0})
    assert [p.wait(600) for p in processes] == [0, 0]
    assert len(losses(stopped)) == reached + 2


@pytest.mark.slow
def test_two_processes_share_a_bucket(emulator, glyph_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    emulator.upload(glyph_folder / "lvis_layout", "data/lvis_layout")
    settings = {"train.steps": 4, "logs": tmp_path}
    assert [p.wait(600) for p in start_two("gs://pods/two", "gs://pods/data", **settings)] == [0, 0]
    metrics = [json.loads(line) for line in emulator.content("two/metrics.jsonl").splitlines()]
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    results = emulator.names("two/eval/4/")
    assert "two/eval/4/metrics.json" in results and not any(name.endswith(".partial") for name in results)
    images = {detection["image_id"] for detection in json.loads(emulator.content("two/eval/4/detections_bbox.json"))}
    assert len(images) > 6  # of 12, of which each process had 6
    logs = [(tmp_path / f"two_{process}.log").read_text() for process in range(2)]
    assert sum("small_train: copying" in log for log in logs) == 1  # they are one machine
    assert [p.wait(600) for p in start_two("gs://pods/two", "gs://pods/data", **settings | {"train.steps": 6})] == [
        0,
        0,
    ]
    assert "resumed from step 4" in (tmp_path / "two_0.log").read_text()


@pytest.mark.slow
def test_a_dead_host_ends_the_other_within_a_bounded_time(glyph_folder, tmp_path):
    processes = start_two(tmp_path / "run", glyph_folder, **{"train.steps": 2000, "train.eval_every": 0})
    wait_for_step(tmp_path / "run", 2, processes[0])
    processes[1].kill()
    assert processes[0].wait(200) != 0
    assert (tmp_path / "run_0.log").stat().st_size > 0
