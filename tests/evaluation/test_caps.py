"""AP under caps: exactly the numbers of a results file that was cut by hand; the flags; the page."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_results import random_set

from c2am_jax.checks import WrongSetting
from c2am_jax.config import glyphs, parse
from c2am_jax.errors import UserError
from c2am_jax.evaluation.caps import capped, check_caps, usual_caps
from c2am_jax.evaluation.lvis_ap import ALL_IOU_TYPES, evaluate_file
from c2am_jax.report.charts import by_share

ROOT = Path(__file__).parents[2]
CAPS = (1, 2, 3, 5, 20, 300)


def cut(predictions, cap):
    """The file with the `cap` best detections of each image, ties in the file's order."""
    found, kept = json.loads(predictions.read_text()), []
    for image in {d["image_id"] for d in found}:
        own = [d for d in found if d["image_id"] == image]
        kept += sorted(own, key=lambda d: -d["score"])[:cap]
    path = predictions.with_name(f"cut{cap}.json")
    path.write_text(json.dumps(kept))
    return path


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ALL_IOU_TYPES)
def test_each_cap_is_the_file_cut_by_hand(tmp_path, seed, kind):
    truths, predictions = random_set(tmp_path, seed)  # ties at the cut, more than 300 of an image, empty masks
    rows = capped(evaluate_file(truths, predictions, kind, workers=1), CAPS)
    assert [row["cap"] for row in rows] == [*CAPS] and rows[3]["share"] == pytest.approx(5 / 6)
    for row in rows:
        expected = evaluate_file(truths, cut(predictions, row["cap"]), kind, workers=1).metrics()
        for name in ("AP", "AP50", "APr", "APc", "APf"):
            assert row[name] == expected[name], (row["cap"], name)


def test_worker_processes_know_the_ranks_too(tmp_path):
    truths, predictions = random_set(tmp_path, 4)
    one, two = (capped(evaluate_file(truths, predictions, "segm", workers=n), CAPS) for n in (1, 2))
    assert one == two


def test_usual_caps_have_lvis_share_of_the_classes_and_end_at_its_limit():
    assert usual_caps(100) == [4, 8, 16, 25, 50, 100]
    assert usual_caps(1203) == [48, 96, 192, 300] and usual_caps(3) == [1, 2, 3]


@pytest.mark.parametrize("cap", [0, 301])
def test_a_cap_that_lvis_ap_cannot_have_is_told(cap):
    with pytest.raises(UserError, match=f"--caps {cap}: give numbers from 1 to 300"):
        check_caps([25, cap])
    with pytest.raises(WrongSetting, match=r"eval\.caps=.*ascending numbers from 1 to 300"):
        parse(glyphs("g", "c2am")).changed({"eval.caps": (cap,)})


def test_the_command_prints_and_writes_them(tmp_path):
    truths, predictions = random_set(tmp_path, 1)
    files = ["--annotations", str(truths), "--predictions", str(predictions)]
    out, page = tmp_path / "metrics.json", tmp_path / "page.html"

    def run(*more):
        command = [sys.executable, "eval.py", *files, *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("--caps=3,1", "--output", str(out), "--report", str(page))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    place = lines.index("bbox: only the best k detections of each image (LVIS: k / classes = 0.25)")
    assert lines[place + 1].split() == ["k", "k", "/", "classes", "AP", "AP50", "APr", "APc", "APf"]
    assert [line.split()[:2] for line in lines[place + 2 : place + 4]] == [["1", "0.167"], ["3", "0.5"]]
    metrics = json.loads(out.read_text())
    (row,) = capped(evaluate_file(truths, predictions, "bbox"), [3])
    assert metrics["bbox/AP@3"] == row["AP"] and metrics["bbox/APr@3"] == row["APr"] and "bbox/AP@1" in metrics
    text = page.read_text()
    assert "Detections per image" in text and "AP under caps, per cent" in text and '"caps":{"bbox":[{"cap":1' in text
    for flags, message in (
        (["--caps=ten"], "error: --caps ten: give whole numbers, such as --caps 12,25,50"),
        (["--caps=500"], "error: --caps 500: give numbers from 1 to 300"),
        (["--caps=3", "--fixed"], "error: --caps does not go with --fixed"),
    ):
        wrong = run(*flags)
        assert wrong.returncode == 2 and wrong.stderr.startswith(message) and wrong.stderr.count("\n") == 1


def test_a_curve_has_lvis_share_marked():
    svg = by_share({"all": [(0.04, 10.0), (1.0, 20.0)], "rare": []}, mark=0.25, title="t", y_name="AP")
    x = 62 + (720 - 62 - 16) * np.log(0.25 / 0.04) / np.log(1 / 0.04)
    assert f'class="ideal" d="M{x:.1f} ' in svg and svg.count('class="line') == 1 and svg.count("h0") == 2
