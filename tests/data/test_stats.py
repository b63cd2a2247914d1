"""The report about an annotation file."""

import json

import pytest

from c2am_jax.data.stats import main


@pytest.fixture
def annotations(tmp_path):
    """Three classes in four images, one of them empty and one too small to train."""
    sizes = [(480, 640), (640, 480), (480, 640), (20, 20)]
    images = [{"id": i, "height": h, "width": w, "file_name": f"{i}.jpg"} for i, (h, w) in enumerate(sizes, 1)]
    boxes = [(1, 1)] * 3 + [(1, 2), (2, 1), (4, 3)]
    square = [[0, 0, 9, 0, 9, 9, 0, 9]]
    entries = [
        {"id": i, "image_id": image, "category_id": label, "bbox": [0, 0, 9, 9], "area": 81, "segmentation": square}
        for i, (image, label) in enumerate(boxes, 1)
    ]
    categories = [{"id": i, "name": f"n{i}"} for i in (1, 2, 3, 4)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    return path


def test_counts_repeat_factors_and_padding(annotations, tmp_path, capsys):
    assert main([str(annotations), "--out", str(tmp_path / "out"), "--threshold", "0.5"]) == 0
    numbers = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert (numbers["images"], numbers["images_that_train"], numbers["annotations"]) == (4, 2, 6)
    assert numbers["classes_without_annotations"] == 1 and numbers["groups"]["r"]["classes"] == 4
    assert numbers["per_image"]["100"] == 4 and numbers["sizes"]["long"]["50"] == 640
    # Class 2 is in one of the three images with annotations: sqrt(0.5 * 3) makes the first image count twice.
    assert numbers["repeat_factors"]["largest"] == pytest.approx(1.5**0.5)
    assert numbers["repeat_factors"]["epoch_ceil"] == 3
    assert numbers["buckets"]["800x1088"]["images"] == 0.5 and numbers["buckets"]["1088x800"]["images"] == 0.5
    assert 0 < numbers["wasted"] < 0.3
    output = capsys.readouterr().out
    assert "4 images (2 train), 6 annotations, 4 classes" in output and "padding in all" in output
    assert "with the settings for LVIS (--config NAME_OR_FILE takes others): short side 736," in output
    assert (tmp_path / "out" / "stats.png").stat().st_size > 10_000


def test_padding_is_that_of_the_config(annotations, tmp_path, capsys):
    """Of glyphs: 480 x 640 and 640 x 480 are resized until the long side is 128, so to 96 x 128 of 128 x 128."""
    assert main([str(annotations), "--config=glyphs_c2am", f"--out={tmp_path / 'out'}"]) == 0
    numbers = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert numbers["buckets"] == {"128x128": {"images": 1.0, "wasted": 0.25}} and numbers["wasted"] == 0.25
    assert numbers["larger_than_canvas"] == 3 and numbers["lose_resolution"] == 0
    output = capsys.readouterr().out
    assert "with the settings of glyphs_c2am: short side 128, long one at most 128;" in output
    assert "3 images are larger than data.canvas=128 and are fitted to it; 0 of them lose resolution" in output
    assert "padded to 128x128: 100.0 % of the images, 25.0 % padding" in output
    assert main([str(annotations), "--config=none"]) == 2 and "no config file none" in capsys.readouterr().err


def test_a_file_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "b.json").write_text("{}")
    assert main([str(tmp_path / "b.json")]) == 2
    assert main([str(tmp_path / "c.json")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "b.json" in errors[0] and "c.json" in errors[1]
