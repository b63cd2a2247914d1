"""The pictures of an evaluation: which images, and what is drawn on them."""

import json

import numpy as np
import pytest
from PIL import Image

from c2am_jax.data.lvis import read_json
from c2am_jax.data.prepared import load
from c2am_jax.evaluation import picture_grid
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.picture_grid import shown_images, write_pictures
from c2am_jax.visualization.grid import CAPTION, GAP, Captioned, grid


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    from tiny import draw_glyphs

    return load("small_val", draw_glyphs(tmp_path_factory.mktemp("data"), train_images=8, head=4))


def detect_truths(dataset, folder, score):
    """Results files of a detector that finds every annotation."""
    found = {"bbox": [], "segm": []}
    for truth in read_json(dataset.annotations_path)["annotations"]:
        common = {"image_id": truth["image_id"], "category_id": truth["category_id"], "score": score}
        found["bbox"].append({**common, "bbox": truth["bbox"]})
        found["segm"].append({**common, "segmentation": truth["segmentation"]})
    for kind, entries in found.items():
        text = "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"
        (folder / f"detections_{kind}.json").write_text(text)


def halves(path, side):
    """Annotated and detected pictures of the sheet, without captions."""
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    width, height = side + GAP, side + CAPTION + GAP
    for row in range(sheet.shape[0] // height):
        cells = [
            sheet[row * height + GAP + CAPTION :, c * width + GAP :][:side, :side]
            for c in range(sheet.shape[1] // width)
        ]
        yield from zip(cells[::2], cells[1::2], strict=True)


def test_a_perfect_detector_draws_the_annotations(glyphs, tmp_path, monkeypatch):
    detect_truths(glyphs, tmp_path, 0.75)
    monkeypatch.setattr(picture_grid, "QUALITY", 100)
    thresholds = evaluate_file(glyphs.annotations_path, tmp_path / "detections_segm.json", "segm").thresholds()
    path = write_pictures(glyphs, tmp_path, thresholds)
    assert path == tmp_path / "pictures.jpg" and {p.name for p in tmp_path.glob("pic*")} == {"pictures.jpg"}
    pairs = list(halves(path, 3 * 128))  # glyphs are enlarged thrice
    assert len(pairs) == 8
    for truth, detected in pairs:
        different = (np.abs(truth - detected).max(-1) > 60).mean()  # the scores behind the names, and borders of masks
        assert truth.std() > 5 and 0 < different < 0.1


def test_the_same_images_every_time_and_nothing_drawn_of_what_is_below_the_threshold(glyphs, tmp_path, monkeypatch):
    chosen = shown_images(glyphs)
    assert chosen == sorted(set(chosen)) == shown_images(glyphs) and len(chosen) == 8
    assert all(len(glyphs.labels_of(index)) for index in chosen)
    detect_truths(glyphs, tmp_path, 0.25)
    scored = []

    def note(picture, boxes, labels, scores, masks, **_):
        scored.append(None if scores is None else len(scores))
        return picture

    monkeypatch.setattr(picture_grid, "draw", note)
    for row, drawn in (({"threshold": 0.2, "f1": 0.1}, True), ({"threshold": 0.0, "f1": 0.0}, False)):
        scored.clear()
        write_pictures(glyphs, tmp_path, [row])
        expected = [min(len(glyphs.labels_of(i)), picture_grid.MOST) if drawn else 0 for i in chosen]
        assert scored == [value for count in expected for value in (None, count)]


def test_a_grid_holds_its_pictures_where_they_belong():
    cells = [
        Captioned(np.full((h, w, 3), v, np.uint8), "a name much too long to fit")
        for h, w, v in ((10, 30, 50), (20, 40, 100), (8, 25, 150))
    ]
    sheet = grid([cells[:2], cells[2:]])
    assert sheet.shape == (2 * CAPTION + 20 + 8 + 3 * GAP, 30 + 40 + 3 * GAP, 3)
    assert (sheet[GAP + CAPTION :, GAP:][:10, :30] == 50).all()
    assert (sheet[GAP + CAPTION :, 2 * GAP + 30 :][:20, :40] == 100).all()
    assert (sheet[2 * (GAP + CAPTION) + 20 :, GAP:][:8, :25] == 150).all()
