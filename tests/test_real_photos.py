"""Slow proofs on real photos: the paper's detector trains, survives a kill and evaluates; the pipeline overfits.

Run with ``python -m pytest -m slow tests/test_real_photos.py -s``; tests/real_photos.md shows what they printed.
"""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def environment():
    return {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}  # one device, as a user has


def command(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(workdir):
    path = Path(workdir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def photos(shared):
    folder = shared / "data" / "lvis_mini_dev"
    return {split: folder / f"lvis_mini_dev_{split}.json" for split in ("train", "val")} | {"images": folder / "images"}


def test_the_papers_detector_trains_survives_a_kill_and_evaluates(photos, tmp_path):
    options = [
        "--config=configs/maskrcnn_r50_c2am.py",
        "--config.data.name=mini",
        f"--config.data.dir={tmp_path}/data",
        f"--config.data.annotations={photos['train']}",
        f"--config.data.val_annotations={photos['val']}",
        f"--config.data.images={photos['images']}",
        "--config.data.short_sides=(160,192)",
        "--config.data.max_side=256",
        "--config.data.test_short_side=192",
        "--config.data.buckets=((192,256),(256,192))",
        "--config.data.max_instances=60",
        "--config.model.backbone.norm=group_norm",
        "--config.model.backbone.frozen_stages=-1",
        "--config.train.init=random",
        "--config.model.box_head.samples=64",
        "--config.train.steps=30",
        "--config.train.batch_size=2",
        "--config.train.base_lr=0.04",
        "--config.train.warmup_steps=10",
        "--config.train.log_every=1",
        "--config.train.checkpoint_every=6",
        "--config.train.eval_every=0",
    ]
    command("train.py", *options, f"--workdir={tmp_path}/whole")
    whole = lines(tmp_path / "whole")
    losses = [line["loss"] for line in whole]
    print("losses", [round(v, 3) for v in losses])
    assert len(losses) == 30 and sum(losses[-5:]) < 0.8 * sum(losses[:5])

    killed = subprocess.Popen(
        [sys.executable, "train.py", *options, f"--workdir={tmp_path}/cut"], cwd=ROOT, env=environment()
    )
    deadline = time.monotonic() + 900
    while len(lines(tmp_path / "cut")) < 15 and time.monotonic() < deadline:
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    print("killed at step", len(lines(tmp_path / "cut")))
    command("train.py", *options, f"--workdir={tmp_path}/cut")
    assert [line["loss"] for line in lines(tmp_path / "cut")] == losses

    printed = command("eval.py", *options, f"--workdir={tmp_path}/cut")
    print(printed)
    assert "bbox" in printed and "segm" in printed
    metrics = json.loads((tmp_path / "cut" / "eval" / "30" / "metrics.json").read_text())
    assert {"bbox/AP", "segm/AP"} <= set(metrics)


def test_eight_photos_are_learnt_by_heart(photos, tmp_path):
    content = json.loads(photos["train"].read_text())
    count = collections.Counter(annotation["image_id"] for annotation in content["annotations"])
    content["images"] = sorted((i for i in content["images"] if count[i["id"]]), key=lambda i: count[i["id"]])[:8]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    few = tmp_path / "eight.json"
    few.write_text(json.dumps(content))
    printed = command(
        "train.py",
        "--config=configs/maskrcnn_r50_c2am.py",
        f"--workdir={tmp_path}/run",
        "--config.data.name=eight",
        f"--config.data.dir={tmp_path}/data",
        f"--config.data.annotations={few}",
        f"--config.data.val_annotations={few}",
        f"--config.data.images={photos['images']}",
        "--config.data.short_sides=(192,)",
        "--config.data.max_side=288",
        "--config.data.test_short_side=192",
        "--config.data.flip_probability=0.0",
        "--config.data.buckets=((192,288),(288,192))",
        "--config.data.max_instances=40",
        "--config.model.backbone.depth=10",
        "--config.model.backbone.width=32",
        "--config.model.backbone.norm=group_norm",
        "--config.model.backbone.frozen_stages=-1",
        "--config.train.init=random",
        "--config.model.fpn.channels=64",
        "--config.model.fpn.norm=group_norm",
        "--config.model.rpn.anchor_scale=6.0",
        "--config.model.rpn.pre_nms_train=300",
        "--config.model.rpn.post_nms_train=200",
        "--config.model.box_head.samples=64",
        "--config.model.box_head.fc_channels=256",
        "--config.model.box_head.finest_scale=28",
        "--config.model.mask_head.convs=2",
        "--config.model.mask_head.channels=64",
        "--config.train.steps=900",
        "--config.train.lr_steps=(600,800)",
        "--config.train.batch_size=2",
        "--config.train.base_lr=0.16",
        "--config.train.warmup_steps=100",
        "--config.train.log_every=50",
        "--config.train.checkpoint_every=900",
    )
    print(printed)
    for line in lines(tmp_path / "run"):
        print({key: round(line[key], 3) for key in ("step", "loss", "loss/cls", "loss/box", "loss/mask", "lr")})
    metrics = json.loads((tmp_path / "run" / "eval" / "900" / "metrics.json").read_text())
    assert metrics["bbox/AP"] >= 0.5 and metrics["segm/AP"] >= 0.4
