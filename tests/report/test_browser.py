"""The page in headless Chromium: axe finds nothing, nothing is requested; quick, by keyboard, narrow and dark too."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.report.results_report import results_report

SCRIPT = Path(__file__).with_name("browser.cjs")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
CLASSES = 1203


def missing():
    """What a machine lacks for this test."""
    if not shutil.which("node") or not CHROMIUM:
        return "needs node and Chromium (or CHROMIUM=its path)"
    find = "require.resolve('puppeteer-core'); require.resolve('axe-core/axe.min.js')"
    if subprocess.run(["node", "-e", find], capture_output=True).returncode:
        return "needs npm install puppeteer-core axe-core, and NODE_PATH=DIR/node_modules"
    return ""


MISSING = missing()


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    """The small evaluation, its objects spread over as many categories as LVIS has."""
    folder, rng = tmp_path_factory.mktemp("browser"), random.Random(0)
    truth, found = (json.loads(evaluation[name].read_text()) for name in ("annotations", "masks"))
    names = {c["id"]: c["name"] for c in truth["categories"]}
    truth["categories"] = [
        {"id": i, "name": names.get(i, f"category_{i}"), "frequency": "fcr"[i % 3], "image_count": 2000 - i}
        for i in range(1, CLASSES + 1)
    ]
    for annotation in truth["annotations"]:
        annotation["category_id"] = rng.choice([annotation["category_id"], rng.randint(1, CLASSES)])
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(found))
    files = str(folder / "gt.json"), str(folder / "dt.json"), "segm"
    results_report(folder / "r.html", *files, evaluate_file(*files, evidence=True), str(evaluation["images"]))
    return folder / "r.html"


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_the_page_in_a_browser(page):
    environment = {**os.environ, "CHROMIUM": CHROMIUM}
    done = subprocess.run(["node", SCRIPT, page], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["requests"] and not found["errors"]
    assert not found["violations"]
    assert max(found["load_ms"]) < 2000 and found["bytes"] < 15_000_000
    assert max(found["overflow"]) <= 0  # no width scrolls as a whole
    assert found["first_focus"] == "Skip to content"
    assert len(found["names"]) == CLASSES and found["images"] > 0
    numbers = [float(v) for v in found["sorted"] if v != "–"]
    assert found["aria_sort"] == "descending" and numbers == sorted(numbers, reverse=True) and len(numbers) > 5
    assert found["sorted"][len(numbers) :] == ["–"] * (CLASSES - len(numbers))
    assert found["searched"] == ["apple"] and found["status"] == f"1 of {CLASSES:,} categories"
