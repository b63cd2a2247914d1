"""Published weights fit the detectors: names and shapes as their files have them, and the paper's command starts."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import Site
from published import mask_rcnn_r50_fpn, resnet
from safetensors.numpy import save_file

from c2am_jax.config import load_experiment
from c2am_jax.training.state import build_detector
from c2am_jax.weights.foreign import fit, to_reference_names
from c2am_jax.weights.names import torch_name

ROOT = Path(__file__).resolve().parents[2]


def shapes_of(config, **changes):
    experiment = load_experiment(config).changed({key.replace("__", "."): v for key, v in changes.items()})
    detector, _ = build_detector(experiment)
    return {name: tuple(value.shape) for name, value in detector.arrays.items()}


def zeros(published):
    """Arrays of these shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in published.items()}


def numbers(published):
    """How many numbers train."""
    return sum(int(np.prod(shape)) for name, shape in published.items() if shape and "running" not in name)


def test_the_rules_have_as_many_tensors_and_numbers_as_the_files():
    """PyTorch's models: 161 and 314 parameters, 53 and 104 batch norms of three buffers each."""
    assert len(resnet(50)) == 161 + 3 * 53 and len(resnet(101)) == 314 + 3 * 104
    assert numbers(resnet(50)) == 25_557_032 and numbers(resnet(101)) == 44_549_160
    assert len(mask_rcnn_r50_fpn()) == 318 + 16 + 6 + 8 + 8 + 2 + 2  # without the two of fc


def fills_the_backbone(shapes, depth):
    found = fit(to_reference_names(zeros(resnet(depth)), source="resnet"), shapes, source="resnet")
    assert set(found.arrays) == {name for name in shapes if name.startswith("backbone.")}
    assert not found.unexpected and not found.reset


@pytest.mark.parametrize(
    "config",
    ["maskrcnn_r101_ce", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cascade_r50_c2am", "methods/bags"))],
)
def test_imagenets_resnets_fill_the_whole_backbone(config):
    fills_the_backbone(shapes_of(config), load_experiment(config).model.backbone.depth)


def test_cocos_mask_rcnn_fills_the_whole_detector_and_imagenets_resnet_its_backbone():
    shapes = shapes_of("maskrcnn_r50_ce", model__num_classes=80)
    fills_the_backbone(shapes, 50)
    found = fit(to_reference_names(zeros(mask_rcnn_r50_fpn()), source="coco"), shapes, source="coco")
    assert set(found.arrays) == set(shapes) and not found.missing and not found.unexpected
    assert {torch_name(name) for name in shapes} == {n for n in mask_rcnn_r50_fpn() if not n.endswith("tracked")}


START = """
import json, logging, sys
sys.modules["torch"] = None  # an import of it fails
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from c2am_jax.config import load_experiment
from c2am_jax.training.initial import check_start, initial_weights, settings_of
from c2am_jax.training.state import build_detector

experiment = load_experiment("configs/maskrcnn_r50_c2am.py")
check_start(experiment, "no/workdir")
detector, _ = build_detector(experiment)
settings = settings_of(experiment)
start = initial_weights(settings, detector, ["a"] * 1203)
backbone = {n: float(np.ptp(v)) for n, v in start.arrays.items() if n.startswith("backbone.")}
first = start.arrays["backbone.conv1.kernel"][0, 0, 0, 0]
print(json.dumps([settings.init, len(backbone), max(backbone.values()), float(first)]))
"""


def real_file(path, value=0.5):
    """A file with the names and shapes of torchvision's ResNet-50 in timm's form, 102 MB."""
    arrays = {name: np.full(shape, value, np.float32) for name, shape in resnet(50).items()}
    arrays |= {name: np.zeros((), np.int64) for name in arrays if name.endswith("tracked")}
    save_file(arrays, path)
    return path.read_bytes()


def mirror(path, address, content):
    """A table in which imagenet:resnet50 is on `address`."""
    path.write_text(
        f'["imagenet:resnet50"]\nlicence = "BSD-3-Clause"\n[["imagenet:resnet50".files]]\n'
        f'url = "{address}/model.safetensors"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    )
    return str(path)


def environment(tmp_path, **changes):
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {"C2AM_CACHE": str(tmp_path / "cache"), "no_proxy": "*", "PYTHONPATH": str(ROOT)} | changes


def test_the_papers_config_starts_from_imagenet_with_an_empty_cache_and_without_torch(tmp_path):
    content = real_file(tmp_path / "model.safetensors")
    site = Site({"/model.safetensors": content})
    site.cut = [30_000_000]
    with site.served() as address:
        given = environment(tmp_path, C2AM_WEIGHTS_SOURCES=mirror(tmp_path / "mirror.toml", address, content))
        command = [sys.executable, "-c", START]
        done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    assert json.loads(done.stdout) == ["imagenet:resnet50", 265, 0.0, 0.5]
    assert [headers.get("Range") for _, headers in site.requests] == [None, "bytes=30000000-"]
    assert "imagenet:resnet50: 102 MB from http://127.0.0.1" in done.stderr and "licence BSD-3-Clause" in done.stderr
    assert "265 arrays matched" in done.stderr


SMALL = {
    "data.name": "mini",
    "data.short_sides": "(160,)",
    "data.max_side": 256,
    "data.test_short_side": 160,
    "data.buckets": "((160,256),(256,160))",
    "data.max_instances": 60,
    "model.box_head.samples": 32,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.eval_every": 0,
}


@pytest.mark.slow
def test_the_papers_command_downloads_its_weights_and_trains(tmp_path, shared):
    folder = shared / "data" / "lvis_mini_dev"
    content = real_file(tmp_path / "model.safetensors", 1e-3)
    data = {"data.dir": tmp_path / "data", "data.annotations": folder / "lvis_mini_dev_train.json"}
    data |= {"data.val_annotations": folder / "lvis_mini_dev_val.json", "data.images": folder / "images"}
    command = [sys.executable, "train.py", "--config", "configs/maskrcnn_r50_c2am.py", f"--workdir={tmp_path}/run"]
    command += [f"--config.{key}={value}" for key, value in (SMALL | data).items()]
    with Site({"/model.safetensors": content}).served() as address:
        given = environment(tmp_path, C2AM_WEIGHTS_SOURCES=mirror(tmp_path / "mirror.toml", address, content))
        done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=1500)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "265 arrays matched" in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
