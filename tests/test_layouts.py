"""Slow proof on real photos: files of LVIS v1.0, LVIS v0.5 and COCO layout are prepared, trained on and evaluated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
SMALL = {
    "model.backbone.depth": 10,
    "model.backbone.width": 8,
    "model.backbone.norm": "group_norm",
    "model.backbone.frozen_stages": -1,
    "model.fpn.channels": 16,
    "model.rpn.pre_nms_train": 60,
    "model.rpn.post_nms_train": 40,
    "model.rpn.pre_nms_test": 60,
    "model.rpn.post_nms_test": 40,
    "model.box_head.fc_channels": 32,
    "model.box_head.samples": 32,
    "model.mask_head.convs": 1,
    "model.mask_head.channels": 16,
    "data.short_sides": "(160,192)",
    "data.max_side": 256,
    "data.test_short_side": 192,
    "data.buckets": "((192,256),(256,192))",
    "data.max_instances": 60,
    "train.init": "random",
    "train.steps": 6,
    "train.batch_size": 2,
    "train.log_every": 2,
}


def as_v05(content):
    """LVIS v0.5: file names with their COCO 2014 set, no coco_url."""
    for image in content["images"]:
        split = image.pop("coco_url").split("/")[-2].removesuffix("2017")
        image["file_name"] = f"COCO_{split}2014_{image['id']:012d}.jpg"


def as_coco(content):
    """COCO: nothing federated, no groups; only categories that occur."""
    for image in content["images"]:
        image["file_name"] = "/".join(image.pop("coco_url").split("/")[-2:])
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    used = {annotation["category_id"] for annotation in content["annotations"]}
    content["categories"] = [{"id": c["id"], "name": c["name"]} for c in content["categories"] if c["id"] in used]


@pytest.mark.parametrize("change", [lambda content: None, as_v05, as_coco], ids=["lvis v1", "lvis v0.5", "coco"])
def test_a_layout_is_prepared_trained_on_and_evaluated(shared, tmp_path, change):
    folder = shared / "data" / "lvis_mini_dev"
    content = json.loads((folder / "lvis_mini_dev.json").read_text())
    change(content)
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(content))
    settings = SMALL | {
        "data.name": "own",
        "data.dir": tmp_path / "data",
        "data.annotations": annotations,
        "data.val_annotations": annotations,
        "data.images": folder / "images",
        "model.num_classes": len(content["categories"]),
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [
        sys.executable,
        "train.py",
        "--config=configs/maskrcnn_r50_c2am.py",
        f"--workdir={tmp_path / 'run'}",
        *flags,
    ]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LVIS" in done.stdout and "classifier weight norm" in done.stdout
    metrics = json.loads((tmp_path / "run" / "eval" / "6" / "metrics.json").read_text())
    assert 0 <= metrics["bbox/AP"] <= 1 and 0 <= metrics["segm/AR@300"] <= 1
    report = next((tmp_path / "data").rglob("report.json"))
    assert json.loads(report.read_text())["layout"] == ("coco" if change is as_coco else "lvis")
