"""Results files with the ids of other annotations: scored by name, as the command line does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def score(*arguments):
    """Status and output of eval.py."""
    command = [sys.executable, "eval.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def files(tmp_path):
    """Truths whose ids are swapped, a perfect results file of the training ids, training's categories."""
    image = {"id": 1, "height": 40, "width": 40, "file_name": "a.jpg"}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}

    def entry(number, category, left):
        corners = [left, 0, left + 9, 0, left + 9, 9, left, 9]
        box = {"image_id": 1, "category_id": category, "bbox": [left, 0, 9, 9]}
        return {**box, "id": number, "area": 81, "iscrowd": 0, "segmentation": [corners]}

    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "bowl"}, {"id": 3, "name": "fork"}]
    swapped = [{"id": 1, "name": "bowl", "frequency": "f"}, {"id": 2, "name": "cup", "frequency": "f"}]
    truth = {"images": [image], "annotations": [entry(1, 1, 0), entry(2, 2, 20)], "categories": swapped}
    found = [
        {"image_id": 1, "category_id": c, "bbox": [x, 0, 9, 9], "score": 0.9} for c, x in ((2, 0), (1, 20), (3, 9))
    ]
    for name, content in (("val", truth), ("results", found), ("train", {"categories": names})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_classes_go_by_name_where_a_file_says_what_the_ids_mean(files):
    arguments = [f"--annotations={files}/val.json", f"--predictions={files}/results.json"]
    status, output = score(*arguments)
    assert status == 2 and "detection 2: category id 3 is not in the annotations" in output
    status, output = score(*arguments, f"--classes={files}/train.json", "--official", f"--report={files}/page.html")
    assert status == 0 and "bbox  100.0" in output and "ours and lvis are equal" in output, output
    assert "val.json has 2 of the 3 classes of" in output and "left out: 1 detection of classes" in output
    assert "val.json has other category ids" in output and "precision 100.0 %, recall 100.0 % at IoU 0.5" in output


def test_classes_beside_the_results_need_no_flag(files):
    (files / "classes.json").write_bytes((files / "train.json").read_bytes())
    arguments = [f"--annotations={files}/val.json", f"--predictions={files}/results.json", "--protocol=coco"]
    status, output = score(*arguments)
    assert status == 0 and "bbox  100.0" in output and "other category ids" in output, output
    (files / "classes.json").write_text('["cup", "bowl"]')
    status, output = score(*arguments)
    assert status == 2 and "classes.json: category 'cup': no object with id and name" in output


def test_the_shared_case(shared):
    cases = shared / "cases"
    files = [cases / "categories_renumbered" / n for n in ("val.json", "results_of_a_perfect_detector.json")]
    arguments = [f"--annotations={files[0]}", f"--predictions={files[1]}", "--protocol=coco"]
    assert "bbox  100.0" not in score(*arguments)[1]
    status, output = score(*arguments, f"--classes={cases}/base/train.json")
    assert status == 0 and "bbox  100.0" in output, output
