"""python -m c2am_jax.data.browse: what stands in the page for everything that can be wrong with a json."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from conftest import annotation
from PIL import Image

from c2am_jax.browse import augmented, survey, suspects
from c2am_jax.browse.command import main
from c2am_jax.browse.files import pixels_for
from c2am_jax.browse.paint import MARK, painted
from c2am_jax.config import load_experiment
from c2am_jax.data import builder


def browse(annotations, images, out, *more):
    """The page that the command writes."""
    assert main([str(annotations), f"--images={images}", f"--out={out}", *more]) == 0
    return out.read_text()


def counts(annotations, images):
    return survey.survey(str(annotations), images).counts()


def drawings(page):
    """Pixels of all drawings of a page."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def as_corners(content):
    content["annotations"][1]["bbox"] = [30, 10, 40, 40]  # its mask is 10 x 30


def as_corners_without_a_mask(content):
    content["annotations"][1] = annotation(2, 1, 2, [30, 10, 60, 40], [])


def outside(content):
    content["annotations"][0] = annotation(1, 1, 7, [-9, 6, 29, 16])


def beside_its_mask(content):
    content["annotations"][2]["bbox"] = [2, 2, 10, 8]


def two_points(content):
    content["annotations"][2]["segmentation"] = [[8, 8, 32, 40]]


def thin(content):
    content["annotations"][2]["bbox"][2] = 0.4


def wholly_outside(content):
    content["annotations"][2]["bbox"] = [200, 8, 24, 32]


def narrow(content):
    content["annotations"][2] = annotation(3, 2, 5, [8, 8, 3, 32])


def without_mask(content):
    del content["annotations"][2]["segmentation"]


def twice(content):
    content["annotations"].append(annotation(9, 2, 5, [8, 8, 24.2, 32]))


def crowd(content):
    content["annotations"][2]["iscrowd"] = 1


def file_gone(content):
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/none.jpg"


def other_size(content):
    content["images"][3] |= {"height": 32, "width": 32}


def one_file(content):
    content["images"][3]["coco_url"] = "http://images.cocodataset.org/train2017/000000000001.jpg"
    content["images"][3] |= {"height": 48, "width": 64}
    content["annotations"][3] = annotation(4, 4, 5, [0, 0, 60, 40])


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (as_corners, "corners", "category 2, annotation 2: bbox 30, 10, 40, 40 looks like x1, y1, x2, y2"),
        (as_corners_without_a_mask, "corners", "bbox 30, 10, 60, 40 looks like"),
        (outside, "outside", "category 7, annotation 1: box reaches 9 pixels outside, left"),
        (beside_its_mask, "mask_box", "category 5, annotation 3: box and the box of its mask have an IoU of 0.01"),
        (two_points, "unusable_mask", "annotation 3: no polygon with at least 3 points"),
        (thin, "degenerate", "annotation 3: box of 0.4 x 32 pixels"),
        (wholly_outside, "degenerate", "annotation 3: box lies outside the picture"),
        (narrow, "tiny", "annotation 3: 3 x 32 pixels"),
        (without_mask, "no_mask", "annotation 3: no mask"),
        (twice, "twins", "annotation 9: nearly the same box as annotation 3"),
        (crowd, "crowds", "crowd regions only"),
        (file_gone, "missing", "image 1: no file"),
        (other_size, "size", "the file has height 64 and width 64, the json says height 32 and width 32"),
        (one_file, "same_file", "the file of image 1"),
    ],
)
def test_each_suspect_is_counted_explained_and_marked(tiny, tmp_path, capsys, change, kind, said):
    content, write = tiny
    change(content)
    annotations, images = write()
    page = browse(annotations, images, tmp_path / "page.html")
    found = counts(annotations, images)
    assert found[kind] == (1, 1) and (len(found) == 1 or change in (as_corners_without_a_mask, other_size))
    explained = next(one for one in suspects.KINDS if one.key == kind)
    assert f"suspect: {explained.title}: 1" in capsys.readouterr().out
    assert explained.title in page and explained.meaning.replace("'", "&#x27;") in page
    assert said in page and re.search(rf'<li data-kinds="[^"]*\b{kind}\b', page)
    first = drawings(page)[0] if change is not file_gone else None
    if explained.counts == "object":
        red = np.abs(first.astype(int) - MARK).max(-1) < 40
        assert red.sum() > 50 and '<span class="badge">1</span>' in page


def test_a_folder_that_the_names_begin_with_is_not_another_one(tiny):
    content, write = tiny
    for number, image in enumerate(content["images"], 1):
        image["file_name"] = f"train2017/{number:012d}.jpg"
    annotations, images = write()
    assert not counts(annotations, images) and not counts(annotations, images / "train2017")
    content["images"][0] |= {"file_name": "old/000000000001.jpg", "coco_url": ""}
    assert counts(write()[0], images / "train2017") == {"elsewhere": (1, 1)}


def test_broken_and_turned_files(tiny, tmp_path):
    content, write = tiny
    annotations, images = write()
    first, second = (images / f"train2017/{number:012d}.jpg" for number in (1, 2))
    first.write_bytes(first.read_bytes()[:600])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(second).save(second, exif=exif)
    page = browse(annotations, images, tmp_path / "page.html")
    assert counts(annotations, images) == {"unreadable": (1, 1), "turned": (1, 1)}
    assert "This picture cannot be drawn." in page and "EXIF orientation 6; annotations fit it as it is stored" in page


def test_a_picture_that_is_too_large_is_called_so_as_in_training(tiny, tmp_path, capsys):
    annotations, images = tiny[1]()
    Image.new("1", (12_500, 8_000)).save(images / "train2017" / "000000000001.jpg", "PNG")
    page = browse(annotations, images, tmp_path / "page.html")
    assert counts(annotations, images) == {"too_large": (1, 1)}
    assert "suspect: pictures that are too large: more than 50 megapixels: 1" in capsys.readouterr().out
    fault = "height 8000 and width 12500 are more than 50 megapixels"
    assert fault in page and "This picture cannot be drawn." in page
    report = builder.prepare(annotations, images, "t", tmp_path / "data", workers=1)
    assert report["skipped_entries"] == {"image too large": [f"image 1: {fault}"]}


def test_a_json_in_which_nothing_is_wrong(tiny, tmp_path, capsys):
    annotations, images = tiny[1]()
    page = browse(annotations, images, tmp_path / "page.html")
    assert capsys.readouterr().out.splitlines() == [
        f"{annotations}: 4 pictures, 4 objects of 3 classes (lvis layout)",
        "nothing looks wrong",
        f"{tmp_path / 'page.html'}: 4 of 4 pictures, {len(page.encode()) / 1e6:.1f} MB; open it in a browser",
    ]
    assert len(drawings(page)) == 4 and "Nothing looks wrong" in page and 'id="suspects"' not in page
    assert '<th scope="row">category 5</th><td>5</td><td>2</td><td>2</td><td>frequent</td>' in page


def test_a_json_of_boxes_says_so_once(tiny, tmp_path, capsys):
    content, write = tiny
    for entry in content["annotations"]:
        del entry["segmentation"]
    annotations, images = write()
    page = browse(annotations, images, tmp_path / "page.html")
    assert "suspect: no object has a mask: nothing of this json trains" in capsys.readouterr().out
    assert page.count("No object has a mask") == 1 and not counts(annotations, images)


def test_entries_that_nobody_can_use_are_listed(tiny, tmp_path, capsys):
    content, write = tiny
    content["annotations"][0]["bbox"][0] = float("nan")
    page = browse(*write(), tmp_path / "page.html")
    assert "left out: annotation unusable: 1, for example annotation 1" in capsys.readouterr().out
    assert "Left out by training and here. The first: annotation 1" in page


def test_the_page_asks_for_nothing_and_runs_no_name(tiny, tmp_path):
    content, write = tiny
    content["categories"][0]["name"] = "</script><script>alert(1)</script>"
    page = browse(*write(), tmp_path / "page.html")
    assert "<script>alert" not in page and "default-src 'none'; img-src data:;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_kinds_take_turns_and_every_class_is_shown_if_there_is_room():
    found = {place: {"tiny": 1} for place in range(50)} | {60: {"size": 1}, 61: {"size": 9}, 62: {"missing": 1}}
    classes = [{0} for _ in range(100)]
    classes[99] = {7}
    worst, ordinary = survey.chosen(found, classes, 8)
    assert worst[:3] == [62, 61, 60] and len(worst) == 6 and all(found[place] == {"tiny": 1} for place in worst[3:])
    assert len(ordinary) == 2 and 99 in ordinary
    assert [len(part) for part in survey.chosen(found, classes, 1000)] == [53, 47]
    assert [len(part) for part in survey.chosen({}, classes, 10)] == [0, 10]


def test_suspects_are_shown_worst_first_and_most_limits_them(tiny, tmp_path):
    content, write = tiny
    narrow(content)
    file_gone(content)
    page = browse(*write(), tmp_path / "page.html", "--most=3")
    assert re.findall(r'<li data-kinds="([^"]*)"', page) == ["missing", "tiny", ""]


def test_small_objects_lie_on_top_and_boxes_outside_are_seen():
    picture = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[40, 40, 50, 50], [0, 0, 90, 90], [80, 80, 120, 110]], float)
    masks = [np.zeros((100, 100), bool) for _ in boxes]
    plain = painted(picture, boxes, [0, 1, 2], masks, ["a", "b", "c"])
    marked = painted(picture, boxes, [0, 1, 2], masks, ["a", "b", "c"], marks={2: 1})
    assert plain.size == (600, 600) and marked.size == (720, 720)  # with grey around, at a smaller zoom


CASES = {
    "base/train.json": {},
    "base/val.json": {},
    "rle/truth_runs_short_by_one.json": {"unusable_mask": (1, 1)},
    "rle/truth_string_cut.json": {"unusable_mask": (8, 4)},
    "polygons/empty.json": {"no_mask": (1, 1)},
    "polygons/two_points.json": {"unusable_mask": (1, 1)},
    "polygons/good_part_and_two_point_part.json": {},
    "polygons/no_segmentation_key.json": {"no_mask": (1, 1)},
    "box_only/nokey.json": {},
    "box_only/empty.json": {},
    "area_missing/val.json": {},
    "exif/train.json": {"turned": (2, 2)},
    "large_ids/val.json": {},
    "same_name/same.json": {"same_file": (1, 1)},
    "annotation_id_0/val.json": {},
    "all_crowd/train.json": {"crowds": (6, 6)},
}


@pytest.mark.parametrize("name", CASES)
def test_jsons_as_people_have_them(shared, name):
    folder = shared / "cases"
    images = folder / ("exif" if name.startswith("exif") else "base") / "images"
    assert counts(folder / name, images) == CASES[name]


def test_turned_pictures_are_drawn_with_the_object_under_its_box(shared, tmp_path):
    folder = shared / "cases" / "exif"
    page = browse(folder / "train.json", folder / "images", tmp_path / "page.html")
    means = []
    found = survey.survey(str(folder / "train.json"), folder / "images")
    for place in range(3):
        picture = found.picture(place)
        x1, y1, x2, y2 = picture.things[0].corners.astype(int)
        means.append(pixels_for(picture.path, picture.hw)[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean((0, 1)))
    assert all(red > 2 * green for red, green, _ in means) and len(drawings(page)) == 3


def test_pictures_as_training_sees_them(tiny, tmp_path, monkeypatch):
    content, write = tiny
    annotations, images = write()
    red = images / "train2017/000000000002.jpg"  # 64 x 48, one object
    pixels = np.full((64, 48, 3), 90, np.uint8)
    pixels[8:40, 8:32] = (220, 20, 20)
    Image.fromarray(pixels).save(red, quality=95)
    drawn = {}

    def note(pixels, corners, labels, masks, names, **_):
        drawn[tuple(labels)] = pixels, corners, masks
        return painted(pixels, corners, labels, masks, names)

    monkeypatch.setattr(augmented, "painted", note)
    settings = dataclasses.replace(load_experiment("glyphs_c2am").data, flip_probability=1.0, copy_paste=0.0)
    made = augmented.augmented_drawings(survey.survey(str(annotations), images), [0, 1, 2, 3], settings)
    assert set(made) == {1, 2, 4}  # 3 has no object
    pixels, corners, masks = next(value for value in drawn.values() if len(value[1]) == 1 and value[1][0, 0] > 0)
    height, width = pixels.shape[:2]
    np.testing.assert_allclose(
        corners[0], np.array([16 / 48, 8 / 64, 40 / 48, 40 / 64]) * ([width, height] * 2), atol=0.5
    )
    x1, y1, x2, y2 = np.rint(corners[0]).astype(int)
    assert pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2, 0].min() > 150 and pixels[: y1 - 2, :, 0].max() < 150
    inside = np.zeros((height, width), bool)
    inside[y1:y2, x1:x2] = True
    assert (masks[0] != inside).mean() < 0.02


def test_the_page_with_augmentation(tiny, tmp_path):
    annotations, images = tiny[1]()
    more = ["--augmented", "--config=glyphs_c2am", "--override=data.copy_paste=1.0"]
    page = browse(annotations, images, tmp_path / "page.html", *more)
    assert len(drawings(page)) == 7 and "as the training of glyphs_c2am sees it" in page
    assert "This picture does not train: no usable file or object." in page


def test_wrong_input_is_one_line(tiny, tmp_path, capsys):
    annotations, images = tiny[1]()
    page = f"--out={tmp_path / 'page.html'}"
    folder = f"--images={images}"
    (tmp_path / "text.json").write_text("no json")
    for arguments, words in [
        (["gone.json", folder, page], "gone.json: no such file"),
        ([str(tmp_path / "text.json"), folder, page], "not a json file"),
        ([str(annotations), "--images=gone", page], "--images gone: no such folder"),
        ([str(annotations), f"--images={tmp_path}", page], "has none of the pictures that"),
        ([str(annotations), folder, f"--out={tmp_path}"], "a folder; name a file"),
        ([str(annotations), folder, f"--out={tmp_path / 'page.txt'}"], "ends in .html"),
        ([str(annotations), folder, page, "--most=0"], "at least 1"),
        ([str(annotations), folder, page, "--config=glyphs_c2am"], "add --augmented"),
        ([str(annotations), folder, page, "--augmented"], "needs --config"),
        ([str(annotations), folder, page, "--augmented", "--config=none"], "no config file none"),
        ([str(annotations), folder, page, "--augmented", "--config=glyphs_c2am", "--override=data.nono=1"], "nono"),
    ]:
        assert main(arguments) == 2, arguments
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and errors[0].startswith("error: ") and words in errors[0], errors
    assert not (tmp_path / "page.html").exists()
