"""Runs whose workdir and data are in a bucket: killed, resumed, evaluated, and one line where the bucket fails."""

import json
import os
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT, output, start, wait_for
from tiny import random_batch, tiny_config
from untrained import STEP, untrained_run

from c2am_jax import predict
from c2am_jax.errors import UserError
from c2am_jax.files import as_path
from c2am_jax.losses.calibration import LogitStatistics
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.training import logit_statistics
from c2am_jax.training.checkpoint import COMMITTED, Checkpoints, saved_steps
from c2am_jax.training.initial import classes_of, load, weights_of_workdir
from c2am_jax.training.nonfinite import read_batch, write_batch
from c2am_jax.training.preconditions import check_first_start
from c2am_jax.training.state import build_detector

PATIENCE_S = 900  # of commands that take a minute, on a machine that has other work too
TRAIN = {"train__steps": 6, "train__checkpoint_every": 2}


@pytest.fixture(scope="module")
def bucket(emulator, glyph_folder):
    """The server, with the prepared glyphs in gs://pods/data."""
    emulator.upload(glyph_folder / "lvis_layout", "data/lvis_layout")
    return emulator


def metrics(bucket, run="run"):
    return [json.loads(line) for line in bucket.content(f"{run}/metrics.jsonl").splitlines()]


def test_a_run_in_a_bucket_is_killed_resumed_evaluated_and_predicts(
    bucket, glyph_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "first machine"))
    where, shared = ("gs://pods/run", "gs://pods/data"), {"cache": tmp_path / "compiled"}
    first = start("train.py", *where, **TRAIN, **shared)
    wait_for(lambda: f"run/checkpoints/2/{COMMITTED}" in bucket.names("run/"), first, PATIENCE_S)
    first.send_signal(signal.SIGKILL)
    _, _, error = output(first)
    assert re.search(
        r"small_train: copying 7 files, \d+ MB, from gs://pods/data/lvis_layout/small_train/1.1.0 to", error
    )
    assert "metrics grow in " in error and {2} <= {line["step"] for line in metrics(bucket)}
    before = {line["step"]: line["loss"] for line in metrics(bucket)}

    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "second machine"))
    status, shown, error = output(start("train.py", *where, **TRAIN, train__eval_every=6, **shared), PATIENCE_S)
    assert status == 0, error
    resumed = int(re.search(r"resumed from step (\d+), workdir gs://pods/run", shown)[1])
    assert resumed >= 2 and "gs://pods/run/eval/6" in shown and "its last owner is gone" in error
    lines = metrics(bucket)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] == before.get(line["step"], line["loss"]) for line in lines[:resumed])
    assert "eval/segm/AP" in lines[-1]
    there = {name.removeprefix("run/").partition("/")[0].partition(".out.")[0] for name in bucket.names("run/")}
    assert there == {
        *("config.json", "categories.json", "metrics.jsonl", "events", "eval"),
        *("checkpoints", "checkpoints_checksums", "best", "best_checksums", "best.json"),
    }
    assert len([name for name in bucket.names("run/") if "tfevents" in name]) == 2
    assert bucket.content("run/eval/6/pictures.jpg") and json.loads(bucket.content("run/eval/6/metrics.json"))

    report = "--report=gs://pods/run/report.html"
    bucket.requests.clear()
    status, shown, error = output(start("eval.py", *where, report, **TRAIN, **shared), PATIENCE_S)
    assert status == 0, error
    assert "step 6, 12 images of small_val" in shown and "gs://pods/run/eval/6\n" in shown
    assert b"small_val" in bucket.content("run/report.html") and "copying" not in error

    capsys.readouterr()
    pictures = str(glyph_folder / "small" / "images" / "val")
    options = ["--workdir=gs://pods/run", f"--out={tmp_path / 'out'}", "--threshold=0"]
    assert predict.main([pictures, *options]) == 0
    assert "step 6: " in capsys.readouterr().out and len(list((tmp_path / "out").glob("*.jpg"))) == 12


def test_drawings_go_to_a_local_folder(tmp_path, capsys):
    assert predict.main([str(tmp_path), "--workdir=gs://pods/run", "--out=gs://pods/out"]) == 2
    assert "--out gs://pods/out: drawings are written into a local folder" in capsys.readouterr().err


def command(*arguments, **environment):
    """A command's status and what it says, without any run that works."""
    made = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return made.returncode, made.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (
            ("eval.py", "--workdir=gs://pods/run"),
            {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"},
            "gs://pods/run: the bucket cannot be reached .*: check the network, then run the same command again",
        ),
        (
            ("eval.py", "--workdir=gs://pods/none"),
            {},
            r"gs://pods/none: no run there \(no config.json\); give --workdir DIR of a run that was started, or .*",
        ),
        (
            ("train.py", "--config=glyphs_c2am", "--workdir=gs://nobody/run"),
            {},
            "gs://nobody/run: there is no bucket nobody: correct the address, or make it with gcloud storage .*",
        ),
        (
            ("train.py", "--config=glyphs_c2am", "--workdir=gs://pods/new", "--config.data.dir=gs://pods/raw"),
            {},
            r"gs://pods/raw/lvis_layout/glyphs_train/1.1.0: no finished data set. Prepare it once, .* --out gs://pods/raw;"
            r" or copy .*: gcloud storage cp -r DATA/lvis_layout gs://pods/raw/",
        ),
    ],
)
def test_a_bucket_that_fails_is_one_line_before_the_work(bucket, arguments, environment, line):
    status, error = command(*arguments, **environment)
    assert status == 2 and "Traceback" not in error
    said = [text for text in error.splitlines() if text.startswith("error: ")]
    assert len(said) == 1 and re.fullmatch(f"error: {line}", said[0]), error


@pytest.fixture(scope="module")
def arrays():
    return jax.device_put({"a": jnp.arange(50_000.0), "b": jnp.ones(3)}, replicated(data_mesh(jax.devices()[:1])))


def save(arrays, workdir, *steps):
    with Checkpoints(workdir, experiment=tiny_config()) as checkpoints:
        for step in steps:
            checkpoints.save(arrays, step)


def test_the_newest_are_kept_and_one_that_was_cut_off_does_not_count(bucket, arrays):
    workdir = as_path("gs://pods/kept")
    save(arrays, workdir, 1, 2, 3, 4)
    assert saved_steps(workdir / "checkpoints") == [2, 3, 4]
    assert bucket.names("kept/checkpoints_checksums") == [
        f"kept/checkpoints_checksums/{step}.json" for step in (2, 3, 4)
    ]
    del bucket.buckets["pods"].objects[f"kept/checkpoints/4/{COMMITTED}"]  # killed before its last file
    assert saved_steps(workdir / "checkpoints") == [2, 3]
    del bucket.buckets["pods"].objects["kept/checkpoints_checksums/4.json"]
    with Checkpoints(workdir, experiment=tiny_config()) as checkpoints:
        assert checkpoints.steps == [2, 3] and not bucket.names("kept/checkpoints/4")
        found = checkpoints.load(arrays)
        checkpoints.save(arrays, 4)
    np.testing.assert_array_equal(found["a"], arrays["a"])
    assert saved_steps(workdir / "checkpoints") == [2, 3, 4]
    bucket.buckets["pods"].put("young/checkpoints/1/state/_METADATA", b"{}")  # the first save was cut off
    check_first_start(as_path("gs://pods/young"))


@pytest.mark.parametrize("harm", ["missing", "other"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(bucket, arrays, caplog, harm):
    workdir = as_path(f"gs://pods/{harm}")
    save(arrays, workdir, 1, 2)
    objects = bucket.buckets["pods"].objects
    largest = max(bucket.names(f"{harm}/checkpoints/2/"), key=lambda name: len(objects[name][0]))
    if harm == "missing":
        del objects[largest]
    else:
        bucket.buckets["pods"].put(largest, bytes(len(objects[largest][0])))
    with Checkpoints(workdir, experiment=tiny_config()) as checkpoints:
        found = checkpoints.load(arrays)
        assert checkpoints.steps == [1] and "checkpoints/2 is damaged" in caplog.text
        checkpoints.save(arrays, 2)  # its place is free again
    np.testing.assert_array_equal(found["a"], arrays["a"])
    assert saved_steps(workdir / "checkpoints") == [1, 2] and bucket.names(f"{harm}/checkpoints_damaged/2_")
    for name in bucket.names(f"{harm}/checkpoints/"):
        del objects[name]
    with pytest.raises(UserError, match=r"no checkpoint there is whole; damaged: checkpoints_damaged/2_\d+\. Put back"):
        check_first_start(workdir)


def test_a_save_that_the_bucket_refuses_is_one_line(bucket, arrays, monkeypatch):
    save(arrays, as_path("gs://pods/refused"), 1)
    monkeypatch.setattr(bucket, "refuse", lambda method, path: 403 if method == "POST" else None)
    with pytest.raises(UserError, match=r"gs://pods/refused/checkpoints: a checkpoint could not be saved .*: 1\. When"):
        save(arrays, as_path("gs://pods/refused"), 2)


def test_a_batch_and_statistics_are_kept_in_a_bucket_too(bucket):
    batch = jax.tree.map(np.asarray, random_batch(2))
    said = write_batch(as_path("gs://pods/kept"), 7, iter([((64, 64), batch)]))
    assert said.endswith("gs://pods/kept/nonfinite/step_7.npz")
    step, bucket_hw, first, found = read_batch(as_path("gs://pods/kept/nonfinite/step_7.npz"))
    assert (step, bucket_hw, first) == (7, (64, 64), 0)
    np.testing.assert_array_equal(found.image, batch.image)
    path = logit_statistics.path_of("gs://pods/kept", 7)
    logit_statistics.write(LogitStatistics(np.ones(3), np.full(3, 2.0)), path)
    assert logit_statistics.read(path).std.tolist() == [2, 2, 2]


def test_weights_come_from_a_run_in_a_bucket(bucket):
    untrained_run(as_path("gs://pods/stage1"))
    source = "gs://pods/stage1"
    detector, _ = build_detector(tiny_config())
    found = load(source, detector, classes=classes_of(as_path(source)))
    expected, step = weights_of_workdir(as_path(source))
    assert step == STEP and len(found.given) == len(detector.arrays)
    for name, value in found.detector.arrays.items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(
        UserError, match="config.train.init: no workdir gs://pods/none; files of weights are taken from"
    ):
        load("gs://pods/none", detector)
