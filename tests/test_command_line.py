"""train.py and eval.py as commands: configs, overrides, and one line for wrong input."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from c2am_jax.config import detector_settings
from c2am_jax.models.settings import MaskRCNNSettings

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode, lines, done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_and_names_its_command(path):
    module = load(path)
    config = module.get_config()
    assert config.name == path.stem and f"--config configs/{path.name}" in module.__doc__
    settings = detector_settings(config)
    assert MaskRCNNSettings.from_dict(config.model.to_dict()) == settings


def test_the_papers_settings():
    config = load(ROOT / "configs" / "maskrcnn_r50_c2am.py").get_config()
    assert detector_settings(config) == MaskRCNNSettings()
    assert config.loss.to_dict()["scale"] == 30 and config.loss.alpha == 0.5
    assert (config.train.epochs, config.train.base_lr, tuple(config.train.lr_epochs)) == (24, 0.02, (16, 22))
    old = load(ROOT / "configs" / "maskrcnn_r101_ce.py").get_config("v05")
    assert (old.model.num_classes, old.model.backbone.depth, old.data.name) == (1230, 101, "lvis_v05")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train.py",), "give --config NAME_OR_FILE; names: cascade_r101_c2am"),
        (("train.py", "--config=configs/nothing.py"), "glyphs_c2am"),
        (("train.py", "--config=configs/glyphs_c2am.py", "--config.loss.alhpa=1"), "no such key in the config"),
        (("train.py", "--config=configs/maskrcnn_r50_c2am.py:v2"), "v2"),
        (("train.py", "--config=configs/glyphs_c2am.py", "loss.alpha=1"), "unexpected argument"),
        (("train.py", "--config=configs/maskrcnn_r50_c2am.py", "--config.data.dir=/nonexistent"), "lvisdataset.org"),
        (("eval.py",), "give --config"),
        (("eval.py", "--annotations=none.json", "--predictions=none.json"), "none.json: no such file"),
        (("eval.py", "--config=configs/glyphs_c2am.py", "--workdir=/nonexistent"), "no run there"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, named):
    status, lines, output = command(*arguments)
    assert status == 2, output
    assert len(lines) == 1 and named in lines[0], output
    assert "Traceback" not in output


def test_scoring_a_file_needs_no_model_and_writes_the_metrics(tmp_path):
    image = {
        "id": 1,
        "height": 9,
        "width": 9,
        "file_name": "a",
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
    }
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "segmentation": []}
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a", "frequency": "f"}]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    (tmp_path / "dt.json").write_text(json.dumps(found))
    files = [f"--annotations={tmp_path}/gt.json", f"--predictions={tmp_path}/dt.json", f"--output={tmp_path}/m.json"]
    status, _, output = command("-X", "importtime", "eval.py", *files, "--iou_type=bbox")
    assert status == 0 and "100.0" in output
    assert "tensorflow" not in output and " jax" not in output
    assert json.loads((tmp_path / "m.json").read_text())["bbox/AP"] == pytest.approx(1.0)
