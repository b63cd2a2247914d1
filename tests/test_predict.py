"""python -m c2am_jax.predict: pictures in, drawings and results out, and one line for wrong input."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny import tiny_config
from untrained import CATEGORIES, STEP

from c2am_jax.data.picture_files import named_pictures
from c2am_jax.evaluation.coco_ap import evaluate_coco_file
from c2am_jax.evaluation.detect import PictureDetector
from c2am_jax.evaluation.result_classes import classes_of_results
from c2am_jax.mesh import data_mesh
from c2am_jax.predict import main
from c2am_jax.training.categories import write_categories
from c2am_jax.training.checkpoint import write_config
from c2am_jax.training.restore import load_detector


def pixels(seed, hw=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (suffix, hw) in enumerate([("jpg", (64, 64)), ("png", (40, 64)), ("png", (200, 90))]):
        Image.fromarray(pixels(number, hw)).save(folder / f"{number + 1}.{suffix}")
    (folder / "notes.txt").write_text("no picture, and nobody asked for it")
    return folder


def run(workdir, out, *inputs, threshold=0.0):
    return main([*map(str, inputs), f"--workdir={workdir}", f"--out={out}", f"--threshold={threshold}"])


def test_a_folder_of_pictures(workdir, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    video = ["--video", str(tmp_path / "all.gif")]
    assert main([str(pictures), f"--workdir={workdir}", f"--out={out}", "--threshold=0", *video]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["1.jpg", "2.png", "3.png", "classes.json", "predictions.json"]
    with Image.open(out / "2.png") as drawn, Image.open(tmp_path / "all.gif") as animation:
        assert drawn.size == (64 * 7, 40 * 7) and getattr(animation, "n_frames", 1) == 3
    found = json.loads((out / "predictions.json").read_text())
    assert {entry["image_id"] for entry in found} <= {1, 2, 3} and found
    for entry in found:
        assert entry["category_name"] == f"thing {entry['category_id'] - 10}"
        height, width = {1: (64, 64), 2: (40, 64), 3: (200, 90)}[entry["image_id"]]
        assert coco_mask.decode(entry["segmentation"]).shape == (height, width)
        x, y, w, h = entry["bbox"]
        assert min(x, y, w, h) >= 0 and x + w <= width + 1e-3 and y + h <= height + 1e-3
    assert f"step {STEP}:" in capsys.readouterr().out


def test_batches_of_any_size_find_the_same(workdir):
    trained = load_detector(workdir)
    shapes = [(64, 64), (30, 64), (64, 64), (64, 20), (64, 64), (50, 60)]

    def found(batch, devices):
        mesh = data_mesh(jax.devices()[:devices])
        detect = PictureDetector(trained.experiment, trained.detector, mesh, batch_size=batch)
        return dict(detect((i, pixels(i, hw)) for i, hw in enumerate(shapes)))

    one, many = found(1, 1), found(3, 2)
    assert one.keys() == many.keys() == set(range(6))
    for key in one:
        np.testing.assert_allclose(one[key].scores, many[key].scores, atol=1e-5)
        np.testing.assert_allclose(one[key].boxes, many[key].boxes, atol=1e-2)
        assert (one[key].labels == many[key].labels).all() and len(one[key].masks()) == len(one[key].scores)


def test_the_size_of_the_networks_input_can_be_chosen(workdir):
    trained = load_detector(workdir)
    detect = PictureDetector(trained.experiment, trained.detector, data_mesh(jax.devices()[:1]), size=(96, 64))
    assert detect.bucket((50, 50))[0] == (96, 64) and detect.bucket((50, 50))[1].tolist() == [64, 64]
    assert detect.bucket((300, 100))[1].tolist() == [96, 32] and detect.bucket((9000, 1))[1].tolist() == [96, 1]


def test_bad_pictures_are_named_and_the_others_go_on(workdir, pictures, tmp_path, capsys):
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:500])
    (pictures / "4.jpg").write_text("not a picture")
    assert run(workdir, tmp_path / "out", pictures, tmp_path / "nothing.png") == 1
    lines = capsys.readouterr().err.splitlines()
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == 3 and "3 skipped" in lines
    for name, words in (("2.png", "truncated"), ("4.jpg", "not an image"), ("nothing.png", "no such file")):
        assert any(name in line and words in line for line in skipped)
    assert (tmp_path / "out" / "1.jpg").is_file() and not (tmp_path / "out" / "4.jpg").exists()


def test_subfolders_are_walked_in_natural_order_and_keep_their_names(pictures):
    (pictures / "b10").mkdir()
    (pictures / "b2" / "deep").mkdir(parents=True)
    (pictures / ".hidden").mkdir()
    (pictures / "out" / "b2").mkdir(parents=True)
    for place in ("b10/1.jpg", "b2/1.jpg", "b2/deep/1.png", ".hidden/5.jpg", "out/1.jpg", "out/b2/1.jpg"):
        Image.fromarray(pixels(9)).save(pictures / place)
    (pictures / "b2" / "again").symlink_to(pictures)  # a circle
    files, faults = named_pictures([str(pictures)], pictures / "out")
    drawings = ["1.jpg", "2.png", "3.png", "b2/1.jpg", "b2/deep/1.png", "b10/1.jpg"]
    assert [str(file.drawing) for file in files] == drawings and not faults
    assert [str(file.path.relative_to(pictures)) for file in files] == drawings
    assert [file.image_id for file in files] == [1, 2, 3, 4, 5, 6]  # 1 is the name of several
    (pictures / "b2" / "again").unlink()
    several, _ = named_pictures([str(pictures / "b2"), str(pictures / "b10")], pictures / "out")
    assert [str(file.drawing) for file in several] == ["1.jpg", "deep/1.png", "1_2.jpg"]


def test_equal_names_in_two_folders_give_two_drawings(workdir, pictures, tmp_path):
    (pictures / "more").mkdir()
    Image.fromarray(pixels(7)).save(pictures / "more" / "1.jpg")
    assert run(workdir, tmp_path / "out", pictures) == 0
    drawn = [(tmp_path / "out" / name).read_bytes() for name in ("1.jpg", "more/1.jpg")]
    assert drawn[0] != drawn[1]
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert str(pictures / "more" / "1.jpg") in {entry["file_name"] for entry in found}


def test_the_pictures_of_a_json_are_predicted_under_its_ids_and_scored_by_names(workdir, pictures, tmp_path, capsys):
    """The json has other category ids than the detector, and lists a picture that is gone and one of another size."""
    (pictures / "sub").mkdir()
    (pictures / "2.png").rename(pictures / "sub" / "2.png")
    listed = [("1.jpg", 70, 64, 64), ("sub/2.png", 80, 40, 64), ("gone.png", 90, 9, 9), ("3.png", 95, 90, 200)]
    images = [{"file_name": n, "id": i, "height": h, "width": w} for n, i, h, w in listed]
    categories = [{"id": 100 + k, "name": f"thing {k}"} for k in range(len(CATEGORIES))]
    box = {"id": 1, "image_id": 80, "category_id": 101, "bbox": [4, 4, 20, 20], "iscrowd": 0, "area": 400}
    box |= {"segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}
    truth, out = tmp_path / "v.json", tmp_path / "out"
    truth.write_text(json.dumps({"images": images, "annotations": [box], "categories": categories}))
    assert run(workdir, out, pictures, f"--annotations={truth}") == 1
    told = capsys.readouterr()
    skipped = [line for line in told.err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 2 and "image 90: no file" in skipped[0]
    assert "has height 200 and width 90, the json says height 90 and width 200" in skipped[1]
    assert f"score them: python eval.py --annotations {truth} --predictions {out}" in told.out
    found = json.loads((out / "predictions.json").read_text())
    assert {entry["image_id"] for entry in found} == {70, 80} and (out / "sub" / "2.png").is_file()
    classes = classes_of_results(out / "predictions.json", None)
    told = []
    evaluate_coco_file(truth, out / "predictions.json", "segm", classes=classes, show=told.append)
    assert "other category ids" in " ".join(told) and str(out / "classes.json") in " ".join(told)


def test_no_detection_above_the_threshold_tells_the_best_score(workdir, pictures, tmp_path, capsys):
    assert run(workdir, tmp_path / "low", pictures) == 0
    found = json.loads((tmp_path / "low" / "predictions.json").read_text())
    best = max(found, key=lambda entry: entry["score"])
    capsys.readouterr()
    assert run(workdir, tmp_path / "out", pictures, threshold=1) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("no detection has a score of 1 or more in 3 pictures; the best is 0.")
    assert f"({best['category_name']}, in {best['file_name']}): try --threshold 0." in line
    lower = float(line.rpartition(" ")[2])
    assert 0 < lower <= best["score"] and run(workdir, tmp_path / "out", pictures, threshold=lower) == 0
    assert "no detection" not in capsys.readouterr().out


def test_wrong_input_is_one_line(workdir, pictures, tmp_path, capsys):
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "few.json").write_text(json.dumps([{"id": 1, "name": "one"}]))
    unsaved = tmp_path / "unsaved"
    write_config(unsaved, tiny_config())
    write_categories(unsaved, CATEGORIES)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((workdir / "config.json").read_text())
    good = [str(pictures), f"--workdir={workdir}", f"--out={out}"]
    for arguments, words in [
        ([str(empty), f"--workdir={workdir}"], "no picture in this folder"),
        ([str(tmp_path / "gone.jpg"), f"--workdir={workdir}"], "no such file"),
        ([str(tmp_path / "text.jpg"), f"--workdir={workdir}", f"--out={out}"], "not an image"),
        ([str(pictures), f"--workdir={tmp_path / 'gone'}"], "no run there"),
        ([str(pictures), f"--workdir={unsaved}"], "no checkpoint there"),
        ([str(pictures), f"--workdir={bare}"], "--categories"),
        ([*good, "--step=3"], "there are: 7"),
        ([*good, "--step=best"], "no checkpoint there"),
        ([*good, "--step=foo"], "--step foo: must be a whole number (a checkpoint's step), or best"),
        ([*good, "--step=-1"], "--step -1: must be a whole number (a checkpoint's step), or best"),
        ([*good, f"--categories={tmp_path / 'few.json'}"], "has 1 category, the detector of"),
        ([*good, "--threshold=2"], "between 0 and 1"),
        ([*good, "--size", "50", "64"], "multiples of 32"),
        ([*good, "--batch=0"], "at least 1"),
        ([*good, "--video=a.mp4"], ".gif and .webp"),
        ([str(pictures), f"--workdir={workdir}", f"--out={pictures}"], "would replace them"),
        ([*good, "--annotations=gone.json"], "gone.json: no such file"),
        ([str(pictures / "1.jpg"), *good, "--annotations=v.json"], "give the one folder"),
        ([*good, f"--annotations={tmp_path / 'few.json'}"], "not a json file with an object"),
    ]:
        assert main(arguments) == 2, arguments
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and words in errors[0], (arguments, errors)
