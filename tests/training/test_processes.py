"""One device, eight devices, and two processes with four devices each train alike."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def start(arguments, folder):
    """A process of `process.py`, without the settings of the processes around it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / "process.py"), *map(str, arguments)]
    log = (folder / f"log{arguments[1]}_{arguments[2]}").open("w+")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT), log


def run(processes, devices, methods, folder):
    """What `process.py` saves; its processes run side by side."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    out = folder / f"{processes}x{devices}.npz"
    started = [start((port, i, processes, devices, out, *methods), folder) for i in range(processes)]
    for process, log in started:
        if process.wait(timeout=600) != 0:
            log.seek(0)
            pytest.fail(log.read()[-3000:])
    with np.load(out) as file:
        return dict(file)


def compare(found, expected):
    assert set(found) == set(expected) and len(found) > 50
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_two_processes_train_like_one_with_a_single_device(tmp_path):
    compare(run(2, 4, ["c2am"], tmp_path), run(1, 1, ["c2am"], tmp_path))


@pytest.mark.slow
def test_every_layout_trains_alike_with_every_kind_of_loss(tmp_path):
    methods = ["c2am", "softmax", "seesaw"]
    one = run(1, 1, methods, tmp_path)
    compare(run(1, 8, methods, tmp_path), one)
    compare(run(2, 4, methods, tmp_path), one)
    assert one["seesaw/state/0"].sum() == 5 * 8 * 8  # every sampled RoI of five steps was counted
