"""The `lvis` package beside our protocol, as eval.py --official shows them."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.official import compare, official_metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path):
    """Two images, three categories; one is missed, one found twice, one found in the wrong place."""
    images = [
        {"id": i, "height": 60, "width": 80, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in (1, 2)
    ]
    boxes = [(1, 1, [0, 0, 40, 40]), (1, 2, [50, 10, 20, 20]), (2, 1, [10, 10, 30, 40]), (2, 3, [40, 5, 30, 30])]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "segmentation": [corners(box)]}
        for n, (i, c, box) in enumerate(boxes, 1)
    ]
    categories = [{"id": n, "name": f, "frequency": f} for n, f in enumerate("rcf", 1)]
    truths = {"images": images, "annotations": annotations, "categories": categories}
    found = [(1, 1, [1, 0, 40, 38], 0.9), (1, 1, [2, 1, 40, 40], 0.8), (1, 2, [0, 40, 20, 20], 0.7)]
    found += [(2, 3, [41, 5, 30, 30], 0.6)]
    results = [{"image_id": i, "category_id": c, "bbox": box, "score": s} for i, c, box, s in found]
    (tmp_path / "gt.json").write_text(json.dumps(truths))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    return tmp_path / "gt.json", tmp_path / "dt.json"


def corners(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def command(files, *arguments, before="pass"):
    """eval.py in a process of its own, after `before`: status, what it printed, and its line about an error."""
    annotations, predictions = files
    script = f"import runpy, sys; sys.argv[0] = 'eval.py'; {before}; runpy.run_path('eval.py', run_name='__main__')"
    given = [f"--annotations={annotations}", f"--predictions={predictions}", "--official", *arguments]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode, done.stdout, errors


def test_the_command_prints_both_and_how_far_they_are_apart(files):
    status, output, errors = command(files, "--iou_type=bbox")
    assert status == 0 and not errors
    lines = [line.split() for line in output.splitlines()]
    assert ["bbox", "ours", "lvis", "difference"] in lines
    rows = {line[0]: line[1:] for line in lines if len(line) == 4}
    assert set(official_metrics(*files, "bbox")) <= set(rows)
    assert rows["APc"] == ["0.000000", "0.000000", "0.0e+00"] and rows["APl"][:2] == ["-", "-"]
    assert "bbox: ours and lvis are equal to 1e-09; largest difference" in output


def test_a_difference_is_named_and_is_status_1(files):
    other = "import c2am_jax.evaluation.official as o; real = o.official_metrics; "
    other += "o.official_metrics = lambda *files: {**real(*files), 'APr': 0.125}"
    status, output, errors = command(files, "--iou_type=bbox", before=other)
    assert status == 1 and not errors
    assert "bbox: ours and lvis are NOT equal to 1e-09; largest difference" in output
    assert output.rstrip().endswith("(APr)")


@pytest.mark.parametrize("other", [("--iou_type=boundary",), ("--fixed",), ("--protocol=coco",)])
def test_what_the_package_cannot_score_is_one_line(files, other):
    status, output, errors = command(files, *other)
    assert status == 2 and not output
    assert len(errors) == 1 and other[0] in errors[0]


def test_a_file_that_stops_the_package_is_one_line(files):
    files[1].write_text("[]")  # it looks at the first detection
    with pytest.raises(UserError, match="lvis package fails on .*dt.json .*IndexError"):
        official_metrics(*files, "bbox")


def test_numpy_and_opencv_stay_as_they_are(files):
    before = sys.modules.get("cv2")
    official_metrics(*files, "bbox")
    assert not hasattr(np, "float") and sys.modules.get("cv2") is before


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("name", ["v1_tail", "pseudo_k40"])
def test_the_recorded_sets_are_equal(name, iou_type, shared, tmp_path):
    folder = shared / "data" / "lvis_eval_ref"
    if not folder.is_dir():
        pytest.skip(f"no recorded sets at {folder}")
    entry = json.loads((folder / "expected.json").read_text())[f"{name}/{iou_type}"]
    predictions = folder / entry["dt"]
    if predictions.suffix == ".gz":
        (tmp_path / "dt.json").write_bytes(gzip.decompress(predictions.read_bytes()))
        predictions = tmp_path / "dt.json"
    files = folder.parent / entry["gt"], predictions
    text, equal = compare(*files, iou_type, evaluate_file(*files, iou_type).metrics())
    assert equal, text
