"""The page of both kinds of evaluation: valid, complete, closed to the outside, safe against names, small enough."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_reader import data_of, read
from PIL import Image

from c2am_jax.config import load_experiment
from c2am_jax.data import builder, prepared
from c2am_jax.evaluation.classifier_norms import weight_norm_table
from c2am_jax.evaluation.evaluate import Evaluated
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.report.checkpoint_report import checkpoint_report
from c2am_jax.report.gallery import folder_images, make_gallery
from c2am_jax.report.inspection import KINDS, inspect
from c2am_jax.report.render import script_json
from c2am_jax.report.results_report import results_report
from c2am_jax.report.sections import caps

ROOT = Path(__file__).resolve().parents[2]
ALWAYS = ["summary", "categories", "calibration", "caps", "confusion", "gallery", "setting"]


def results_page(evaluation, path, predictions="masks", kind="segm", images=None):
    files = str(evaluation["annotations"]), str(evaluation[predictions]), kind
    scored = evaluate_file(*files, evidence=True)
    results_report(path, *files, scored, images)
    return scored


@pytest.fixture(scope="module")
def results(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "report.html"
    return path, results_page(evaluation, path, images=str(evaluation["images"]))


def test_a_single_cap_is_a_row_and_no_curve():
    row = {"cap": 25, "share": 0.25, "AP": 0.4, "APr": 0.2, "APc": 0.4, "APf": 0.5}
    _, one = caps({"caps": {"segm": [row]}})
    _, two = caps({"caps": {"segm": [row, row | {"cap": 50, "share": 0.5}]}})
    assert ("<svg" in one, "<svg" in two) == (False, True) and "40.0" in one and one.count("<div") == one.count("</div")


@pytest.fixture(scope="module")
def checkpoint(evaluation, tmp_path_factory):
    """The page of a C2AM checkpoint of two stages."""
    folder = tmp_path_factory.mktemp("checkpoint")
    builder.prepare(evaluation["annotations"], evaluation["images"], "small", folder)
    dataset = prepared.load("small", folder)
    scored = {
        kind: evaluate_file(dataset.annotations_path, evaluation[name], kind, evidence=True)
        for kind, name in (("bbox", "boxes"), ("segm", "masks"))
    }
    rng = np.random.default_rng(0)
    kernels = {stage: rng.normal(size=(8, 7)) for stage in ("s0", "s1")}
    norms = {s: weight_norm_table(np.linalg.norm(k, axis=0), dataset.categories) for s, k in kernels.items()}
    path = folder / "report.html"
    checkpoint_report(
        path,
        load_experiment("glyphs_c2am"),
        Evaluated(dataset, 1200, scored, kernels, norms, path.parent, dataset.categories),
    )
    return path, scored, norms


def test_sections_of_a_results_file(results):
    reader = read(results[0])
    assert reader.sections == ALWAYS
    assert [r for r in reader.references if r.startswith("#")] == ["#content", *(f"#{s}" for s in ALWAYS)]
    assert "box AP" not in " ".join(reader.text) and "mask AP" in reader.text


def test_sections_of_a_checkpoint(checkpoint):
    path, scored, norms = checkpoint
    reader = read(path)
    assert reader.sections == [*ALWAYS[:4], "norms", "margins", *ALWAYS[4:]]
    text = " ".join(reader.text)
    for part in ("glyphs_c2am, step 1,200", "box AP", "mask AP", "background", "devices", '"alpha": 0.5'):
        assert part in text, part
    data = data_of(reader)
    columns = [c["key"] for c in data["table"]["columns"]]
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in data["table"]["rows"]}
    for stage, table in norms.items():
        for category in table["categories"]:
            assert by_name[category["name"]][f"norm_{stage}"] == pytest.approx(category["norm"], abs=1e-6)
    assert set(data["margins"]) == {"s0", "s1"} and "cosine" in data["confusion"]["pairs"][0]
    assert [row["cap"] for row in data["caps"]["segm"]] == [1, 2, 3, 6, 25]  # training's 25, and those of a curve


def test_numbers_in_the_page_are_the_evaluators(checkpoint):
    path, scored, _ = checkpoint
    reader = read(path)
    columns = [c["key"] for c in data_of(reader)["table"]["columns"]]
    rows = data_of(reader)["table"]["rows"]
    for kind, of in scored.items():
        for row, expected in zip(rows, of.category_table(), strict=True):
            shown = dict(zip(columns, row, strict=True))
            assert shown["ground_truths"] == expected["ground_truths"]
            for score in ("AP", "AP50", "AP75", "AR"):
                value = expected[score]
                assert shown[f"{kind}_{score}"] == (None if value == -1 else pytest.approx(value, abs=1e-6))
        tile = next(i for i, t in enumerate(reader.text) if t == f"{'box' if kind == 'bbox' else 'mask'} APr")
        assert reader.text[tile + 1] == f"{100 * of.metrics()['APr']:.1f}"
    assert next(row for row in rows if row[0] == "never seen")[5:13] == [None] * 8


@pytest.mark.parametrize("kind", ["results", "checkpoint"])
def test_nothing_is_asked_from_outside(kind, request):
    path = request.getfixturevalue(kind)[0]
    reader, page = read(path), path.read_text("utf-8")
    assert all(r.startswith(("#", "data:")) for r in reader.references)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest|import\(", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("kind", ["results", "checkpoint"])
def test_names_are_text_wherever_they_stand(kind, request, hostile):
    path = request.getfixturevalue(kind)[0]
    reader, page = read(path), path.read_text("utf-8")
    assert "<script>alert" not in page and len(reader.scripts) == 2
    assert hostile in [row[0] for row in data_of(reader)["table"]["rows"]]
    assert any(hostile in text for text in reader.text)  # in captions and tables too, as text
    assert any("{{data}}" in text for text in reader.text)  # what looks like a place of the template stays a name
    assert not any(key.startswith("on") for image in reader.images for key in image)


def test_json_in_a_script_cannot_end_it():
    nasty = {"<!--": "</script>\u2028<script>"}
    assert json.loads(script_json(nasty)) == nasty and "<" not in script_json(nasty)
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json(float("nan"))


@pytest.mark.parametrize("kind", ["results", "checkpoint"])
def test_pictures_of_every_kind_say_what_they_show(kind, request):
    reader = read(request.getfixturevalue(kind)[0])
    assert reader.images and all(image["alt"] for image in reader.images)
    assert {image["alt"].split(":")[0] for image in reader.images} == {k.capitalize() for k in KINDS}
    for image in reader.images:
        content = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (int(image["width"]), int(image["height"])) and min(picture.size) > 30


def test_masks_and_boxes_are_drawn(evaluation, tmp_path):
    """The right half of a good detection differs from the image in its mask, less where there are boxes only."""
    changed = {}
    for name, kind in (("boxes", "bbox"), ("masks", "segm")):
        scored = evaluate_file(evaluation["annotations"], evaluation[name], kind, evidence=True)
        inspection = inspect(scored.evidence, 0.3)

        def grey(wanted):
            return lambda image: np.full((64, 80, 3), 128, np.uint8)

        arguments = scored.evidence, scored.evidence.problem, scored.categories, inspection.candidates, grey
        picture = make_gallery(*arguments, most=1).pictures["best"][0]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1])))).astype(int)
        right = pixels[:, pixels.shape[1] // 2 + 4 :]
        changed[kind] = (abs(right - 128).max(-1) > 25).mean()
        assert ("mask IoU" in picture.caption) == (kind == "segm")
    assert 0 < changed["bbox"] < changed["segm"]


def test_the_budget_of_pictures_is_kept(evaluation):
    scored = evaluate_file(evaluation["annotations"], evaluation["masks"], "segm", evidence=True)
    candidates = inspect(scored.evidence, 0.3).candidates
    reader = folder_images(evaluation["annotations"], evaluation["images"])
    arguments = scored.evidence, scored.evidence.problem, scored.categories, candidates, reader
    sizes = [
        sum(len(p.source) for of in make_gallery(*arguments, budget=b).pictures.values() for p in of)
        for b in (60_000, 10**9)
    ]
    assert 20_000 < sizes[0] <= 60_000 < sizes[1]
    counts = [len(of) for of in make_gallery(*arguments, budget=60_000).pictures.values()]
    assert max(counts) - min(counts) <= 1  # kinds take turns


def test_without_images_one_sentence_instead_of_pictures(evaluation, tmp_path):
    results_page(evaluation, tmp_path / "r.html")
    reader = read(tmp_path / "r.html")
    assert not reader.images and any("No pictures, because" in text for text in reader.text)


def test_images_that_cannot_be_read_are_left_out_and_counted(evaluation, tmp_path, caplog):
    folder = tmp_path / "images"
    folder.mkdir()
    for file in evaluation["images"].iterdir():
        if file.name.endswith("1.jpg"):
            file_size = (80, 64) if file.name.startswith("000000000001") else (30, 30)
            Image.new("RGB", file_size).save(folder / file.name)
    results_page(evaluation, tmp_path / "r.html", images=str(folder))
    reader = read(tmp_path / "r.html")
    assert any("could not be read" in text for text in reader.text)
    assert "no picture of image" in caplog.text and "no file" in caplog.text


def test_no_detections_at_all(evaluation, tmp_path):
    scored = results_page(evaluation, tmp_path / "r.html", "nothing", "bbox", str(evaluation["images"]))
    reader = read(tmp_path / "r.html")
    assert scored.metrics()["AP"] == 0 and reader.sections == ALWAYS
    text = " ".join(reader.text)
    assert "No object is taken for something else." in text and "nothing detected there" in text
    assert {image["alt"].split(":")[0] for image in reader.images} == {"Missed"}


def test_ap_fixed_says_so(evaluation, tmp_path):
    files = str(evaluation["annotations"]), str(evaluation["boxes"]), "bbox"
    results_report(tmp_path / "r.html", *files, evaluate_file(*files, fixed=True, evidence=True), None)
    text = " ".join(read(tmp_path / "r.html").text)
    assert "AP-fixed" in text and "AR@all" in text


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "eval.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")], done


OUTPUTS = {"report": "r.html", "output": "m.json", "categories": "c.csv"}


def test_the_command_writes_it_into_folders_that_it_makes(evaluation, tmp_path):
    files = f"--annotations={evaluation['annotations']}", f"--predictions={evaluation['boxes']}"
    places = {flag: tmp_path / flag / "made" / name for flag, name in OUTPUTS.items()}
    written = (f"--{flag}={place}" for flag, place in places.items())
    status, _, done = command(*files, *written, f"--images={evaluation['images']}")
    assert status == 0, done.stderr
    assert read(places["report"]).sections == ALWAYS
    assert "bbox/AP" in json.loads(places["output"].read_text())
    assert places["categories"].read_text().splitlines()[0].startswith("id,name,")
    assert all([path.name for path in place.parent.iterdir()] == [place.name] for place in places.values())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--report={tmp}/file/r.html",), "/file is a file, not a folder; name another file"),
        (("--report={tmp}",), "a folder"),
        (("--output={tmp}",), "this is a folder; name a file"),
        (("--output={tmp}/file/m.json",), "/file is a file, not a folder; name another file"),
        (("--categories={tmp}/file/c.csv",), "/file is a file, not a folder; name another file"),
        (("--report={tmp}/r.html", "--images={tmp}/none"), "--images"),
        (("--report={tmp}/r.html", "--protocol=coco"), "--protocol lvis"),
    ],
)
def test_wrong_places_are_one_line_before_any_scoring(evaluation, tmp_path, arguments, named):
    (tmp_path / "file").write_text("not a folder")
    files = f"--annotations={evaluation['annotations']}", f"--predictions={evaluation['boxes']}"
    status, lines, done = command(*files, *(a.format(tmp=tmp_path) for a in arguments))
    assert status == 2 and len(lines) == 1 and named in lines[0], done.stderr
    assert "LVIS" not in done.stdout
