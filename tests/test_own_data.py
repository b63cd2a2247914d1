"""Own pictures in three flags: train, evaluate, score a test set, as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from cases import write_cases
from tiny import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[1]
SMALL = SMALL_MODEL | {
    "train.init": "random",
    "model.backbone.depth": 10,
    "model.backbone.norm": "group_norm",
    "model.backbone.frozen_stages": -1,
    "model.fpn.norm": "group_norm",
    "train.steps": 3,
    "train.batch_size": 2,
}


def command(*arguments, cwd=ROOT):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_three_flags_train_evaluate_and_score_a_test_set(tmp_path):
    write_cases(tmp_path)
    base, workdir = tmp_path / "base", tmp_path / "run"
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    flags += [f"--config.data.annotations={base}/val.json", f"--config.data.val_annotations={base}/val.json"]
    flags += [f"--config.data.images={base}/images", f"--config.data.dir={tmp_path}/data"]
    done = command("train.py", "--config=configs/own_data.py", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert f"derived from {base}/val.json (4 pictures, 8 objects)" in done.stdout
    assert "3 classes, 4 images, 2 steps an epoch, 3 steps" in done.stdout + done.stderr
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["model"]["num_classes"] == 3 and saved["data"]["buckets"] == [[160, 224]]
    assert "folder" not in saved["data"] and None not in [*saved["data"].values(), *saved["train"].values()]
    renumbered = tmp_path / "categories_renumbered" / "val.json"
    tested = command(
        "eval.py", f"--workdir={workdir}", f"--config.data.test_annotations={renumbered}", "--config.eval.split=test"
    )
    assert tested.returncode == 0, tested.stderr
    assert "has other category ids than the detector: classes go by name" in tested.stdout
    metrics = [json.loads((workdir / "eval" / name / "metrics.json").read_text()) for name in ("3", "3-test")]
    np.testing.assert_allclose(metrics[0]["bbox/AP"], metrics[1]["bbox/AP"])

    missing = command("train.py", "--config=configs/own_data.py", f"--config.data.annotations={base}/val.json")
    assert missing.returncode == 2 and missing.stderr.splitlines()[-1].startswith("error: config.data.images: give")


def test_a_json_without_masks_is_refused_before_anything_is_trained(tmp_path):
    write_cases(tmp_path)
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    for key, file in (("annotations", "box_only/nokey.json"), ("val_annotations", "base/val.json")):
        flags.append(f"--config.data.{key}={tmp_path}/{file}")
    flags += [f"--config.data.images={tmp_path}/base/images", f"--config.data.dir={tmp_path}/data"]
    done = command("train.py", "--config=configs/own_data.py", f"--workdir={tmp_path}/run", *flags)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "nokey.json: no object to train on: none of its annotations (8) has a mask" in line
    assert "polygon" in line and not (tmp_path / "data").exists()


def test_a_test_set_that_is_named_and_not_there_is_told_before_anything_is_prepared(tmp_path):
    write_cases(tmp_path)
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    flags += [f"--config.data.{key}={tmp_path}/base/val.json" for key in ("annotations", "val_annotations")]
    flags += [f"--config.data.images={tmp_path}/base/images", f"--config.data.dir={tmp_path}/data"]
    flags.append(f"--config.data.test_annotations={tmp_path}/typo.json")
    done = command("train.py", "--config=configs/own_data.py", f"--workdir={tmp_path}/run", *flags)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path}/typo.json: no such file"
    )
    assert not (tmp_path / "data").exists()
