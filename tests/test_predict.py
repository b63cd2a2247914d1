"""`python -m c2am_jax.predict` on a run of random weights: every kind of image, and wrong input."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny import tiny_config

from c2am_jax.predict import image_files, main, read_image
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.restore import first_state
from c2am_jax.training.step import data_mesh
from c2am_jax.visualization import colour, draw

BRIEF = ("--threshold", "1", "--batch", "2")  # the same program as the other tests


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, compile_quickly):
    folder, config = tmp_path_factory.mktemp("run"), tiny_config()
    _, state = first_state(config, data_mesh(jax.devices()[:1]))
    check_config(folder, config)
    categories = [{"id": 3 * k + 1, "name": f"thing {k}", "frequency": "f"} for k in range(100)]
    (folder / "categories.json").write_text(json.dumps(categories))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, 7)
    return folder


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = rng.integers(0, 256, (40, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(pixels[..., 0]).save(folder / "b_grey.png")
    Image.fromarray(rng.integers(0, 2**16, (300, 200), np.uint16)).save(folder / "c_16_bit_large.png")
    return folder


def test_a_folder_becomes_pictures_a_json_and_a_video(workdir, images, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(images), "--workdir", str(workdir), "--out", str(out), "--threshold", "0", "--batch", "2"]
    assert main([*arguments, "--video", str(tmp_path / "v.gif")]) == 0
    entries = json.loads((out / "predictions.json").read_text())
    assert [entry["picture"] for entry in entries] == ["a.png", "b_grey.png", "c_16_bit_large.png"]
    for entry, size in zip(entries, [(64, 40), (64, 40), (200, 300)], strict=True):
        with Image.open(out / entry["picture"]) as drawn:
            scale = -(-400 // min(size))
            assert size == (entry["width"], entry["height"]) and drawn.size == (scale * size[0], scale * size[1])
        assert len(entry["detections"]) == 10  # all that the detector keeps
        scores = [found["score"] for found in entry["detections"]]
        assert scores == sorted(scores, reverse=True)
        for found in entry["detections"]:
            assert found["category"] == f"thing {(found['category_id'] - 1) // 3}"
            assert coco_mask.decode(found["segmentation"]).shape == size[::-1]
            x, y, w, h = found["bbox"]
            assert 0 <= x and x + w <= size[0] + 1e-3 and 0 <= y and y + h <= size[1] + 1e-3
    with Image.open(tmp_path / "v.gif") as video:
        assert video.n_frames == 3
    assert "3 images, 30 detections" in capsys.readouterr().out


def test_a_bad_image_is_named_and_the_others_go_on(workdir, images, tmp_path, capsys):
    whole = (images / "a.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("no image")
    files = [str(images / name) for name in ("cut.jpg", "text.png", "a.jpg")]
    assert main([*files, "--workdir", str(workdir), "--out", str(tmp_path / "out"), *BRIEF]) == 1
    captured = capsys.readouterr()
    assert "cut.jpg: damaged image" in captured.err and "text.png: not an image" in captured.err
    assert "1 images, 0 detections" in captured.out
    assert main([*files[:2], "--workdir", str(workdir), "--out", str(tmp_path / "out"), *BRIEF]) == 2
    assert "none of the 2 images" in capsys.readouterr().err


def test_wrong_input_is_one_line(workdir, images, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    cases = [
        ([str(tmp_path / "none.jpg"), "--workdir", str(workdir)], "none.jpg: no such file"),
        ([str(tmp_path / "empty"), "--workdir", str(workdir)], "empty: no image in this folder"),
        ([str(images), "--workdir", str(other)], "other: no run there"),
        ([str(images), "--workdir", str(workdir), "--step", "3"], "no checkpoint of step 3; there are: 7"),
    ]
    for arguments, named in cases:
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


def test_categories_of_another_detector_are_refused(workdir, images, tmp_path, capsys):
    text = (workdir / "categories.json").read_text()
    try:
        (workdir / "categories.json").write_text(json.dumps([{"id": 1, "name": "one", "frequency": "f"}]))
        assert main([str(images), "--workdir", str(workdir), "--out", str(tmp_path)]) == 2
        assert "100 classes, its categories.json 1" in capsys.readouterr().err
    finally:
        (workdir / "categories.json").write_text(text)


def test_images_are_upright_rgb(tmp_path):
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:5, :, 0], pixels[..., 3] = 250, 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png")
    assert turned.shape == (30, 20, 3) and turned[:, -3:, 0].min() == 250 and turned[:, :-5].max() == 0
    assert image_files([str(tmp_path)]) == [tmp_path / "turned.png"]


def test_masks_tint_their_pixels_and_boxes_have_their_class_colour():
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[30:40, 30:40] = True
    drawn = draw(image, np.array([[20.0, 20, 60, 50]]), [5], [""], [mask])
    assert (image == 100).all() and (drawn[10:15] == 100).all()
    assert tuple(drawn[20, 40]) == colour(5)
    np.testing.assert_allclose(drawn[35, 35], 0.55 * 100 + 0.45 * np.array(colour(5)), atol=1)
    labelled = draw(image, np.array([[20.0, 20, 60, 50]]), [5], ["name 0.50"])
    assert (labelled != draw(image, np.array([[20.0, 20, 60, 50]]), [5], [""])).any()
    assert draw(image, np.zeros((0, 4)), [], [], scale=3).shape == (180, 240, 3)
    assert len({colour(k) for k in range(100)}) > 95
