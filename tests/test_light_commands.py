"""Scoring, reports and help texts do without JAX, TensorFlow and OpenCV."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("cv2", "flax", "jax", "jaxlib", "optax", "orbax", "tensorflow", "tensorflow_datasets")
# They may be looked for (etils does), but not imported.
WITHOUT = f"""
import importlib, runpy, sys
from importlib.machinery import ModuleSpec

class Refused:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in {HEAVY} else None

    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name + " is not to be imported here", name=spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Refused())
"""


def without_them(script, *arguments):
    """What a script prints in a process where none of HEAVY can be imported."""
    command = [sys.executable, "-c", WITHOUT + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def files(tmp_path):
    """Annotations and results of one 40 x 30 picture in a folder of pictures."""
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "1.jpg")
    image = {"id": 1, "height": 30, "width": 40, "file_name": "1.jpg", "coco_url": "http://x/1.jpg"}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    box = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20]}
    truth = {**box, "id": 1, "area": 400, "iscrowd": 0, "segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}
    category = {"id": 1, "name": "a", "frequency": "f", "image_count": 1, "instance_count": 1}
    truths = {"images": [image], "annotations": [truth], "categories": [category]}
    (tmp_path / "gt.json").write_text(json.dumps(truths))
    (tmp_path / "dt.json").write_text(json.dumps([{**box, "score": 0.5}]))
    return [f"--annotations={tmp_path / 'gt.json'}", f"--predictions={tmp_path / 'dt.json'}"]


COMMAND = "runpy.run_path('eval.py', run_name='__main__')"


def test_scoring_a_file_with_its_report_and_the_lvis_package(files, tmp_path):
    page = tmp_path / "page.html"
    printed = without_them(COMMAND, *files, f"--report={page}", f"--images={tmp_path}", "--official")
    assert "100.0" in printed and "ours and lvis are equal" in printed
    assert "data:image/" in page.read_text()


def test_scoring_by_the_coco_protocol(files):
    assert "100.0" in without_them(COMMAND, *files, "--protocol=coco")


def test_browsing_a_json(files, tmp_path):
    annotations, page = files[0].removeprefix("--annotations="), tmp_path / "page.html"
    command = "runpy.run_module('c2am_jax.data.browse', run_name='__main__', alter_sys=True)"
    printed = without_them(command, annotations, f"--images={tmp_path}", f"--out={page}")
    assert "nothing looks wrong" in printed and "data:image/jpeg" in page.read_text()


def test_the_modules_that_score_and_report():
    modules = [
        "evaluation.lvis_ap",
        "evaluation.coco_ap",
        "evaluation.official",
        "report.results_report",
        "report.render",
        "report.comparison.files",
    ]
    without_them(f"for name in {modules}: importlib.import_module('c2am_jax.' + name)")


@pytest.mark.parametrize("name", ["train", "eval", "predict", "export", "data.prepare", "data.browse", "data.download"])
def test_help(name):
    printed = without_them(f"sys.argv[1:] = ['--help']; runpy.run_module('c2am_jax.{name}', run_name='__main__')")
    assert any(flag in printed for flag in ("--workdir", "--annotations", "--images"))
