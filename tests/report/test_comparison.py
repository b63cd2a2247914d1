"""Two evaluations on one page: the numbers of both, the pictures that differ, and what cannot be compared."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_reader import data_of, read

from c2am_jax.config import load_experiment
from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.results_folder import scored_settings
from c2am_jax.report.comparison.files import compare_files
from c2am_jax.report.comparison.images import differing, looks
from c2am_jax.report.comparison.numbers import moved, settings_that_differ
from c2am_jax.report.comparison.runs import compare_runs, results_of

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ["summary", "categories", "pictures", "setting"]


def command(*arguments, folder=ROOT):
    done = subprocess.run(
        [sys.executable, ROOT / "eval.py", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")], done


def worse(entries):
    """Without what is best about categories 1 and 2."""
    return [e for e in entries if e["category_id"] not in (1, 2) or e["score"] < 0.4]


def make_run(folder, evaluation, experiment, step, change=lambda entries: entries):
    """A workdir as an evaluation leaves it."""
    results = folder / "eval" / f"{step}"
    results.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(experiment.as_dict()))
    for kind, name in (("bbox", "boxes"), ("segm", "masks")):
        entries = change(json.loads(evaluation[name].read_text()))
        (results / f"detections_{kind}.json").write_text(json.dumps(entries))
    (results / "metrics.json").write_text("{}")
    (results / "settings.json").write_text(json.dumps(scored_settings(experiment)))
    categories = json.loads(evaluation["annotations"].read_text())["categories"]
    (results / "classes.json").write_text(json.dumps(categories))
    return folder


@pytest.fixture(scope="module")
def experiment(evaluation, tmp_path_factory):
    values = {
        "data.name": "small",
        "data.dir": str(tmp_path_factory.mktemp("data")),
        "data.val_annotations": str(evaluation["annotations"]),
        "data.val_images": str(evaluation["images"]),
    }
    return load_experiment("glyphs_c2am").changed(values)


@pytest.fixture(scope="module")
def runs(evaluation, experiment, tmp_path_factory):
    """Workdirs of a run and of a worse one with another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "good", evaluation, experiment, 20)
    make_run(folder / "bad", evaluation, experiment.changed({"name": "other", "train.base_lr": 0.5}), 7, worse)
    return folder


@pytest.fixture(scope="module")
def page(runs):
    """The page, and the lines that were printed."""
    lines = []
    compare_runs(runs / "c.html", runs / "good", str(runs / "bad"), show=lines.append)
    return runs / "c.html", "\n".join(lines).splitlines()


def test_the_numbers_of_both_runs_stand_side_by_side(page, evaluation, runs):
    reader = read(page[0])
    assert reader.sections == SECTIONS
    data = data_of(reader)
    for kind in ("bbox", "segm"):
        a, b = (
            evaluate_file(evaluation["annotations"], runs / place / f"detections_{kind}.json", kind)
            for place in ("good/eval/20", "bad/eval/7")
        )
        for name, value in a.metrics().items():
            other = b.metrics()[name]
            expected = [None if v == -1 else pytest.approx(v, abs=1e-6) for v in (value, other)]
            assert data["metrics"][kind][name][:2] == expected
            if None not in expected:
                assert data["metrics"][kind][name][2] == pytest.approx(value - other, abs=2e-6)
        rare = next(row for row in data["groups"][kind] if row["group"] == "rare")
        assert rare["AP"][2] > 0 and rare["better"] == 2 and rare["worse"] == 0
    text = " ".join(reader.text)
    assert "glyphs_c2am, step 20" in text and "other, step 7" in text and "train.base_lr" in text
    assert page[1][:2] == [f"A: glyphs_c2am, step 20 ({runs}/good/eval/20)", f"B: other, step 7 ({runs}/bad/eval/7)"]
    assert page[1][2].split() == ["LVIS", "AP", "AP50", "AP75", "APr", "APc", "APf"]
    assert [line[:10] for line in page[1][3:]] == [
        "bbox A    ",
        "bbox B    ",
        "bbox A - B",
        "segm A    ",
        "segm B    ",
        "segm A - B",
    ]


def test_pictures_show_the_truth_and_both_runs_and_say_what_only_one_finds(page):
    reader = read(page[0])
    names = [image["alt"].split(", ")[1] for image in reader.images]
    assert len(names) >= 3 and names == ["annotated", "A", "B"] * (len(names) // 3)
    text = " ".join(reader.text)
    assert "Only  A  finds: apple" in text or "Only  A  finds: pear" in text
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in reader.images)


def test_the_page_asks_for_nothing_and_runs_no_name(page, hostile):
    reader, content = read(page[0]), page[0].read_text()
    assert all(r.startswith(("#", "data:")) for r in reader.references) and "https://" not in content
    assert "<script>alert" not in content and len(reader.scripts) == 2
    assert hostile in [row[0] for row in data_of(reader)["table"]["rows"]]


def test_images_are_those_in_which_one_run_makes_fewer_mistakes(evaluation, runs):
    def of(place):
        scored = evaluate_file(evaluation["annotations"], runs / place / "detections_bbox.json", "bbox", evidence=True)
        return looks(scored.evidence, 0.3)

    good, bad = of("good/eval/20"), of("bad/eval/7")
    better, lower = differing(good, bad, 100)
    assert better and not {*better} & {*lower}
    gains = [bad[i].mistakes - good[i].mistakes for i in better]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0
    assert [*map(sorted, differing(bad, good, 100))] == [sorted(lower), sorted(better)]
    assert differing(good, bad, 2)[0] == better[:2]
    for image, look in good.items():
        assert not look.found & look.missed
        assert look.found | look.missed == bad[image].found | bad[image].missed


def test_categories_that_moved_most_come_first():
    rows = [{"name": n, "segm_difference": d} for n, d in zip("abcdef", (0.1, -0.3, None, 0.2, 0.0, -0.1), strict=True)]
    better, lower = moved(rows, "segm", 10)
    assert [row["name"] for row in better] == ["d", "a"] and [row["name"] for row in lower] == ["b", "f"]
    assert [row["name"] for row in moved(rows, "segm", 1)[0]] == ["d"]


def test_settings_that_only_one_run_has_are_told():
    assert settings_that_differ({"a": 1, "b": 2}, {"a": 1, "c": 3}) == {"b": (2, "not set"), "c": ("not set", 3)}


def test_a_folder_of_results_and_the_newest_results_of_a_run(runs, evaluation, experiment, tmp_path):
    make_run(tmp_path / "run", evaluation, experiment, 9)
    make_run(tmp_path / "newer", evaluation, experiment, 10)
    (tmp_path / "newer/eval/10").rename(tmp_path / "run/eval/10")
    cut_off = tmp_path / "run/eval/11"
    cut_off.mkdir()
    (cut_off / "detections_bbox.json").write_text("[]")
    assert results_of(tmp_path / "run").name == "glyphs_c2am, step 10"
    assert results_of(tmp_path / "run/eval/9").name == "glyphs_c2am, step 9"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data.val_annotations": "{tmp}/fewer.json"}, "12 and 11 images, 11 in common"),
        ({"data.val_annotations": "{tmp}/moved.json"}, "other objects in the same images"),
        ({"data.val_annotations": "{tmp}/none.json", "data.name": "gone"}, "is not there"),
        ({"eval.subset": "minival"}, "on all images"),
    ],
)
def test_other_data_is_refused(runs, evaluation, experiment, tmp_path, change, said):
    truth = json.loads(evaluation["annotations"].read_text())
    moved = [{**a, "bbox": [0, 0, 9, 9]} if a["id"] == 1 else a for a in truth["annotations"]]
    (tmp_path / "moved.json").write_text(json.dumps(truth | {"annotations": moved}))
    kept = [a for a in truth["annotations"] if a["image_id"] != 12]
    fewer = truth | {"images": truth["images"][:-1], "annotations": kept}
    (tmp_path / "fewer.json").write_text(json.dumps(fewer))
    values = {key: value.format(tmp=tmp_path) for key, value in change.items()}
    other = make_run(tmp_path / "other", evaluation, experiment.changed(values), 5)
    with pytest.raises(UserError, match=said) as error:
        compare_runs(tmp_path / "c.html", runs / "good", str(other / "eval/5"))
    assert str(other) in str(error.value) and "\n" not in str(error.value)


def test_other_classes_are_refused(runs, evaluation, experiment, tmp_path):
    other = make_run(tmp_path / "other", evaluation, experiment, 5)
    classes = json.loads((other / "eval/5/classes.json").read_text())
    classes[0]["name"] = "banana"
    (other / "eval/5/classes.json").write_text(json.dumps(classes))
    with pytest.raises(UserError, match=r"other classes: only .*good/eval/20 has 'apple'; only .* has 'banana'"):
        compare_runs(tmp_path / "c.html", runs / "good", str(other))


def test_a_run_without_results_is_told_the_command_that_makes_them(runs, experiment, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(experiment.as_dict()))
    with pytest.raises(UserError, match=f"no results yet; make them with python eval.py --workdir {tmp_path}$"):
        compare_runs(tmp_path / "c.html", runs / "good", str(tmp_path))
    with pytest.raises(UserError, match=f"--step 8 yet; make them with python eval.py --workdir {runs}/good --step 8$"):
        compare_runs(tmp_path / "c.html", runs / "good", str(runs / "bad"), step=8)
    with pytest.raises(UserError, match="--subset minival yet"):
        compare_runs(tmp_path / "c.html", runs / "good", str(runs / "bad"), subset="minival")
    with pytest.raises(UserError, match="good/best: no checkpoint there; a run has one when it evaluates while it tr"):
        compare_runs(tmp_path / "c.html", runs / "good", str(runs / "bad"), step="best")
    (tmp_path / "best.json").write_text('{"step": 8, "value": 0.5}')
    with pytest.raises(UserError, match="no results --step 8 yet"):
        compare_runs(tmp_path / "c.html", tmp_path, str(runs / "bad"), step="best")
    for place, said in ((runs / "none", "no such folder"), (runs, "neither a run"), ("gs://b/r", "gcloud storage cp")):
        with pytest.raises(UserError, match=said):
            compare_runs(tmp_path / "c.html", runs / "good", str(place))
    with pytest.raises(UserError, match="name another run"):
        compare_runs(tmp_path / "c.html", runs / "good", str(runs / "good/eval/20"))


def test_two_results_files(evaluation, tmp_path):
    files = str(evaluation["annotations"]), str(evaluation["masks"]), str(tmp_path / "worse.json")
    Path(files[2]).write_text(json.dumps(worse(json.loads(evaluation["masks"].read_text()))))
    compare_files(tmp_path / "c.html", *files, "segm", folder=str(evaluation["images"]), show=lambda _: None)
    reader = read(tmp_path / "c.html")
    assert reader.sections == SECTIONS and reader.images and set(data_of(reader)["metrics"]) == {"segm"}
    compare_files(tmp_path / "c.html", *files, "segm", show=lambda _: None)
    assert "give the folder of the images" in (tmp_path / "c.html").read_text()
    assert np.sign(data_of(read(tmp_path / "c.html"))["metrics"]["segm"]["APr"][2]) == 1
    with pytest.raises(UserError, match="a folder"):
        compare_files(tmp_path / "c.html", files[0], files[1], str(tmp_path), "segm")


def test_the_command_compares_and_refuses_by_one_line(runs, tmp_path):
    page = tmp_path / "c.html"
    status, _, done = command(f"--workdir={runs}/good", f"--against={runs}/bad", f"--report={page}", folder=tmp_path)
    assert status == 0, done.stderr
    assert "segm A - B" in done.stdout and "c.html: " in done.stderr and read(page).sections == SECTIONS
    status, lines, done = command(f"--against={runs}/bad")
    assert (status, len(lines)) == (2, 1) and "give --report FILE.html" in lines[0]
