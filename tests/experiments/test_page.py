"""The page of a table, of runs whose detections are written by hand."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny import draw_glyphs  # of tests/training

from c2am_jax.data.datasets import open_dataset
from c2am_jax.experiments import page as page_module
from c2am_jax.experiments.figures import figure
from c2am_jax.experiments.page import mean_and_deviation, write_page
from c2am_jax.experiments.ranking import FILE
from c2am_jax.experiments.rows import rows_of
from c2am_jax.experiments.table import planned_run
from c2am_jax.training.categories import write_categories


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_glyphs(tmp_path_factory.mktemp("data"), train_images=24, head=20)


def finished(run, on_background=0, norm=1.0):
    """Write what an evaluation leaves: each object found, and before it so many detections on background an image.

    Returns in what share of the images the rare class of the latter is verified, so that they count.
    """
    experiment = run.experiment()
    dataset = open_dataset(experiment.data, "val")
    truths = json.loads(open(dataset.annotations_path).read())
    folder = run.workdir / "eval" / str(run.last_step())
    folder.mkdir(parents=True)
    counts = coco_mask.encode(np.zeros((128, 128), np.uint8, order="F"))["counts"].decode("ascii")
    nothing = {"size": [128, 128], "counts": counts}
    rare = next(c["id"] for c in truths["categories"] if c["frequency"] == "r")
    empty = [
        {"image_id": image["id"], "category_id": rare, "score": 0.9, "bbox": [-90, -90, 9, 9], "segmentation": nothing}
        for image in truths["images"]
        for _ in range(on_background)
    ]
    right = [
        {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.5}
        for a in truths["annotations"]
    ]
    for kind in ("bbox", "segm"):
        (folder / f"detections_{kind}.json").write_text(json.dumps(empty + right))
    (folder / "metrics.json").write_text(json.dumps({"segm/AP": 1.0, "segm/AP@25": 1.0, "bbox/AP": 1.0}))
    Image.new("RGB", (8, 8)).save(folder / "pictures.jpg")
    (run.workdir / "config.json").write_text(json.dumps(experiment.as_json()))
    write_categories(run.workdir, dataset.categories)
    norms = {"norm/background": 4.0, **{f"norm/{name}/p50": norm for name in ("rare", "common", "frequent")}}
    steps = [{"step": step, "images_per_sec": experiment.train.batch_size / 3, **norms} for step in (2, 4)]
    lines = [json.dumps(line) for line in steps]
    (run.workdir / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "segm/AP": 1.0}']) + "\n")
    verified = {a["image_id"] for a in truths["annotations"] if a["category_id"] == rare}
    verified |= {image["id"] for image in truths["images"] if rare in image["neg_category_ids"]}
    return len(verified) / len(truths["images"])


def test_a_page_has_each_measure_of_each_finished_row(data, tmp_path):
    user = {"data.dir": str(data), "data.name": "small", "train.steps": 4}
    rows = rows_of("background", "glyphs", ["cosine", "foreground_only=0.5", "all=0.5"])
    planned = [(row, [planned_run("background", row, "glyphs", n, tmp_path, user, {}) for n in (0, 1)]) for row in rows]
    for run in planned[0][1]:
        finished(run)
    verified = finished(planned[1][1][0], on_background=2)
    page = write_page(planned, tmp_path / "page", "a title", "a command")
    text = page.read_text()
    assert text.startswith("# a title\n\nThis page was made by `a command`. Training took 0.2 minutes a run (median)")
    assert "| α = 0 (cosine) | 2 | 100.0 ± 0.0 | 100.0 ± 0.0 |" in text and "margins for background too" not in text
    tables = text.split("## ")[1:]
    assert [table.splitlines()[0][:12] for table in tables] == [
        "Mask AP (%) ",
        "Mask AP (%) ",
        "Mask AP-fixe",
        "Mask AP-pool",
        "Detections o",
        "The same as ",
    ]
    assert "| α = 0 (cosine) | 2 | 0.00 ± 0.00 | 0.00 ± 0.00 |" in tables[4]
    count = f"{2 * verified:.2f}"
    assert f"| α = 0.5, no margins for background | 1 | {count} | {count} | 0.00 | 0.00 |" in tables[4] and verified > 0
    assert {file.name for file in page.parent.iterdir()} == {
        "README.md",
        "numbers.json",
        "caps.png",
        "norms.png",
        "cosine.jpg",
        "foreground_only=0.5.jpg",
    }
    numbers = json.loads((page.parent / "numbers.json").read_text())
    assert [len(seeds) for seeds in numbers.values()] == [2, 1, 0]
    assert numbers["cosine"][0]["caps"][-1]["AP"] == pytest.approx(1)
    kept = planned[0][1][0].workdir / "eval/4" / FILE
    kept.write_text(kept.read_text().replace("1.0", "0.5"))  # scored once: what is kept is what the page shows
    again = write_page(planned, tmp_path / "page", "again", "a command")
    assert "| α = 0 (cosine) | 2 | 75.0 ± 35.4 |" in again.read_text()


def test_every_curve_of_the_norms_is_inside_its_panel(data, tmp_path, monkeypatch):
    user = {"data.dir": str(data), "data.name": "small", "train.steps": 4}
    rows = rows_of("background", "glyphs", ["ce", "cosine"])
    planned = [(row, [planned_run("background", row, "glyphs", 0, tmp_path, user, {})]) for row in rows]
    for (_, (run,)), norm in zip(planned, (1.0, 8.0), strict=True):
        finished(run, norm=norm)
    drawn = {}

    @contextlib.contextmanager
    def recorded(path, *size):
        with figure(path, *size) as axes:
            yield axes
            drawn[path.name] = [[(line.get_ydata(), panel.get_ylim()) for line in panel.lines] for panel in axes[0]]

    monkeypatch.setattr(page_module, "figure", recorded)
    write_page(planned, tmp_path / "page", "a title", "a command")
    curves = [curve for panel in drawn["norms.png"][:4] for curve in panel]
    assert len(curves) == 8 and max(values.max() for values, _ in curves) == 8
    assert all(low == 0 and values.max() <= high for values, (low, high) in curves)


def test_a_page_without_a_finished_run_says_so(data, tmp_path):
    (row,) = rows_of("background", "glyphs", ["cosine"])
    planned = [(row, [planned_run("background", row, "glyphs", 0, tmp_path, {}, {})])]
    page = write_page(planned, tmp_path / "page", "a title", "a command")
    assert page.read_text() == "# a title\n\nThis page was made by `a command`.\n\nNo run is finished.\n"


def test_values_that_do_not_exist_are_left_out_of_a_mean():
    assert mean_and_deviation([0.25, None, -1, 0.75]) == "50.0 ± 35.4"
    assert mean_and_deviation([0.25]) == "25.0" and mean_and_deviation([None]) == "-"
