"""train.py without a terminal, as a user sees it: its lines, metrics.jsonl, TensorBoard; and again after a kill."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from test_metrics import lines, shown
from tiny import TINY

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = TINY | {"train.steps": 6, "train.checkpoint_every": 100, "train.eval_every": 3}


def start(workdir, data, log, cache, **changes):
    environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    settings = SETTINGS | {"data.name": "small", "data.dir": data} | changes
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "train.py", "--config=glyphs_c2am", f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def test_a_run_that_is_killed_before_its_first_checkpoint_and_started_again(glyph_folder, tmp_path):
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    with (tmp_path / "log1").open("w") as log:
        endless = {"train.steps": 1000, "train.eval_every": 0}  # an evaluation would save its step first
        process = start(workdir, glyph_folder, log, cache, **endless)
        until = time.monotonic() + 500
        while process.poll() is None and time.monotonic() < until:
            if (workdir / "metrics.jsonl").exists() and len(lines(workdir)) >= 3:
                break
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -9, (tmp_path / "log1").read_text()
    killed = lines(workdir)[:3]
    assert [line["step"] for line in killed] == [1, 2, 3]

    with (tmp_path / "log2").open("w") as log:
        assert start(workdir, glyph_folder, log, cache, **{"train.log_every": 3}).wait() == 0
    printed = (tmp_path / "log2").read_text()
    expected = [
        r"compiling the training step for images padded to 64x64 \(height x width\) \.\.\.",
        r"\.\.\. compiled, and a first step done, in \d+ s",
        r"step 3/6  loss \d+\.\d{3}  lr [\d.e-]+  [\d.]+ images/s  ETA \d+ s",
        r"evaluating step 3 \.\.\.",
        r"\.\.\. evaluated in \d+ s  bbox/AP \d+\.\d  segm/AP \d+\.\d",
        r"step 6/6  loss \d+\.\d{3}  lr [\d.e-]+  [\d.]+ images/s",
        r"evaluating step 6 \.\.\.",
    ]
    found = [line for line in printed.splitlines() if any(re.fullmatch(text, line) for text in expected)]
    assert len(found) == len(expected) + 1 and "\r" not in printed, printed  # two evaluations end
    for text, line in zip(expected, found, strict=False):
        assert re.fullmatch(text, line), printed

    # Each line is the mean of the steps since the one before; evaluations have their own.
    written = lines(workdir)
    assert [line["step"] for line in written] == [3, 3, 6, 6]
    names = {name for name in killed[0] if not name.startswith(("norm/", "images_per_sec", "step", "lr"))}
    assert {"loss", "loss/cls", "grad_norm", "margin/mean"} <= names
    for name in names:
        mean = sum(line[name] for line in killed) / 3
        assert written[0][name] == pytest.approx(mean, rel=1e-4, abs=1e-6), name
    assert written[0]["lr"] == killed[-1]["lr"] and "images_per_sec" in written[0]
    assert {"eval/bbox/AP", "eval/segm/APr"} <= set(written[1]) and "loss" not in written[1]

    # TensorBoard: each step once, curves of the evaluations, and their pictures.
    tags = shown(workdir)
    assert [step for step, _ in tags["loss"]] == [3, 6]
    assert [step for step, _ in tags["eval/bbox/AP"]] == [3, 6]
    assert [step for step, _ in tags["eval/pictures"]] == [3, 6]
    picture = Image.open(io.BytesIO(tags["eval/pictures"][1][1].encoded_image_string))
    with Image.open(workdir / "eval" / "6" / "pictures.jpg") as file:
        assert picture.size == file.size and min(picture.size) > 300
