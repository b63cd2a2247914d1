"""Validation sets whose categories are not the run's: other ids, some of them, unknown ones, none; and eval.py alone.

The truths are some of the detector's own detections, so that it scores well on them under any right reading of ids.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny import tiny_config

from c2am_jax.data.datasets import open_dataset
from c2am_jax.errors import UserError
from c2am_jax.evaluation.evaluate import evaluate
from c2am_jax.mesh import data_mesh, replicated
from c2am_jax.report.checkpoint_report import checkpoint_report
from c2am_jax.training import checkpoint_evaluation
from c2am_jax.training.categories import categories_of_run, write_categories
from c2am_jax.training.checkpoint import Checkpoints, write_config
from c2am_jax.training.checkpoint_evaluation import evaluate_checkpoint
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state

ROOT = Path(__file__).resolve().parents[2]


def eval_py(*arguments):
    """Status and output of eval.py, which finds the programs that the tests here compiled."""
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    done = subprocess.run(
        [sys.executable, "eval.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | quick,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def truths_of(folder, dataset):
    """A json in the LVIS layout: the three best detections of each image are its objects."""
    whole = json.loads(dataset.annotations_path.read_text())
    boxes, masks = (json.loads((folder / f"detections_{kind}.json").read_text()) for kind in ("bbox", "segm"))
    taken, annotations = {}, []
    for box, mask in sorted(zip(boxes, masks, strict=True), key=lambda pair: -pair[0]["score"]):
        width, height = box["bbox"][2:]
        if min(width, height) > 6 and taken.setdefault(box["image_id"], 0) < 3:
            taken[box["image_id"]] += 1
            entry = {key: box[key] for key in ("image_id", "category_id", "bbox")} | {"area": width * height}
            annotations.append(entry | {"id": len(annotations) + 1, "segmentation": mask["segmentation"]})
    assert len({entry["category_id"] for entry in annotations}) > 3
    for image in whole["images"]:
        image["neg_category_ids"] = image["not_exhaustive_category_ids"] = []
    return whole | {"annotations": annotations}


@pytest.fixture(scope="module")
def run(glyph_folder, tmp_path_factory):
    """Config, workdir and truths of an untrained detector, saved as step 0; its validation set has the run's ids."""
    folder = tmp_path_factory.mktemp("named")
    images = str(glyph_folder / "small" / "images")
    config = tiny_config(method="softmax", data__name="small", data__dir=str(glyph_folder), data__images=images)
    detector, loss_state = build_detector(config)
    detector.params["roi_head.bbox_head.fc_cls.kernel"] *= 100  # so that classes score differently
    dataset = open_dataset(config.data, "val")
    evaluate(config, detector, folder, 0, classes=dataset.categories)
    truths = truths_of(folder / "eval" / "0", dataset)

    (folder / "equal.json").write_text(json.dumps(truths))
    names = {"data.name": "equal", "data.dir": str(folder / "data"), "data.val_annotations": str(folder / "equal.json")}
    config, workdir = config.changed(names), folder / "run"
    state = init_state(detector, loss_state, make_optimizer(config.train, Schedule(config.train, 1).rate))
    write_config(workdir, config)
    write_categories(workdir, dataset.categories)
    with Checkpoints(workdir, experiment=config) as checkpoints:
        checkpoints.save(jax.device_put(state, replicated(data_mesh())), 0)
    return config, workdir, truths


def validation(run, name, change):
    """Keys of `config.data` for the truths with changed categories: old category -> new one, or None without it."""
    _, workdir, truths = run
    new = {category["id"]: change(category) for category in truths["categories"]}
    entries = [(entry, new[entry["category_id"]]) for entry in truths["annotations"]]
    kept = [entry | {"category_id": category["id"]} for entry, category in entries if category]
    path = workdir.parent / f"{name}.json"
    path.write_text(json.dumps(truths | {"categories": [*filter(None, new.values())], "annotations": kept}))
    return {"data.name": name, "data.val_annotations": str(path)}


@pytest.fixture(scope="module")
def own(run):
    """What eval.py prints and writes for the workdir alone."""
    status, output = eval_py("--workdir", run[1])
    assert status == 0, output
    return output, {path.name: path.read_bytes() for path in (run[1] / "eval" / "0").iterdir()}


def test_a_workdir_is_enough(run, own):
    output, files = own
    assert "step 0, 12 images of equal_val" in output and "other" not in output and "left out" not in output
    assert json.loads(files["metrics.json"])["bbox/AP"] > 0.5
    assert json.loads(files["settings.json"])["data.name"] == "equal"


def test_renumbered_classes_score_the_same_and_overwrite_nothing(run, own, tmp_path):
    workdir, metrics = run[1], json.loads(own[1]["metrics.json"])
    keys = validation(run, "turned", lambda category: category | {"id": 1000 - category["id"]})
    changes = (f"--config.{key}={value}" for key, value in keys.items())
    status, output = eval_py(f"--workdir={workdir}", *changes, f"--output={tmp_path}/made/m.json")
    assert status == 0, output
    assert json.loads((tmp_path / "made" / "m.json").read_text()) == pytest.approx(metrics, abs=1e-12)
    assert "scored with other settings than the run: data.name equal -> turned; data.val_annotations" in output
    assert "has other category ids than the detector: classes go by name" in output
    (other,) = [Path(line) for line in output.splitlines() if line.startswith(f"{workdir}/eval/")]
    assert other.parent == workdir / "eval" and other.name.startswith("0-")
    assert json.loads((other / "metrics.json").read_text()) == pytest.approx(metrics, abs=1e-12)
    assert json.loads((other / "settings.json").read_text())["data.name"] == "turned"
    assert {path.name: path.read_bytes() for path in (workdir / "eval" / "0").iterdir()} == own[1]

    # The results file there knows its classes, and so fits the annotations with the run's ids.
    files = [f"--annotations={workdir.parent}/equal.json", f"--predictions={other}/detections_bbox.json"]
    status, output = eval_py(*files, f"--output={tmp_path}/m.json")
    assert status == 0 and "classes go by name" in output, output
    assert json.loads((tmp_path / "m.json").read_text())["bbox/AP"] == pytest.approx(metrics["bbox/AP"], abs=1e-12)


def test_a_wrong_key_and_a_wrong_workdir_are_one_line(run, tmp_path):
    status, output = eval_py("--workdir", run[1], "--config.model.test.score_treshold=0.3")
    assert status == 2 and "error: no such key in the config" in output and "Traceback" not in output
    status, output = eval_py("--workdir", tmp_path)
    assert status == 2 and f"error: {tmp_path}: no run there (no config.json)" in output


def test_a_subset_counts_alone_and_unknown_names_are_listed(run, own, tmp_path):
    config, workdir, truths = run
    first, *kept = sorted({entry["category_id"] for entry in truths["annotations"]})[:3]
    before = {row["name"]: row["AP"] for row in json.loads(own[1]["category_ap.json"])["bbox"]}

    def some(category):
        if category["id"] == first:
            return category | {"name": "zebra"}
        return category if category["id"] in kept else None

    keys, shown, seen = validation(run, "some", some), [], []
    evaluate_checkpoint(config.changed(keys), workdir, show=shown.append, inspect=seen.append)
    text = "\n".join(shown)
    assert "1 class of " in text and "is unknown to the detector and can only score 0: 'zebra'" in text
    assert "has 2 of the 100 classes of the detector: detections of the others do not count" in text
    assert text.count("left out: ") == 1 and "other category ids" not in text
    rows = json.loads((seen[0].folder / "category_ap.json").read_text())["bbox"]
    found = {row["name"]: row["AP"] for row in rows}
    assert len(found) == 3 and found.pop("zebra") == 0 and found == {name: before[name] for name in found}
    checkpoint_report(tmp_path / "page.html", config, seen[0])
    assert "zebra" in (tmp_path / "page.html").read_text()


def test_no_class_in_common_is_an_error_before_any_work(run, tmp_path):
    config, workdir, _ = run
    keys = validation(run, "nothing", lambda category: category | {"name": f"other {category['id']}"})
    classes = categories_of_run(workdir, config)
    with pytest.raises(UserError, match="and the detector have no class name in common: 'other 1'"):
        evaluate(config.changed(keys), None, tmp_path, 0, classes=classes)


def test_a_run_that_does_not_know_its_names_takes_those_of_the_set_and_says_so(run, tmp_path):
    config, shown = run[0], []
    table = checkpoint_evaluation._classes(config, config, tmp_path, None, shown.append)
    assert len(table) == 100 and "does not tell the names of its classes" in shown[0]
    (tmp_path / "three.json").write_text(json.dumps(run[2]["categories"][:3]))
    with pytest.raises(UserError, match=r"three.json has 3 categories, the detector.*give --classes FILE"):
        checkpoint_evaluation._classes(config, config, tmp_path, tmp_path / "three.json", None)
