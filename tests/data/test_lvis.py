"""Reading the LVIS layout, and saying what is wrong with a file."""

import json

import numpy as np
import pytest

from c2am_jax.data.lvis import AnnotationError, category_table, find_image, image_file, read_json


def test_classes_are_in_category_id_order(tiny):
    table = category_table(tiny[0]["categories"])
    np.testing.assert_array_equal(table.ids, [2, 5, 7])
    assert table.frequency == ("r", "f", "c")
    assert table.class_of == {2: 0, 5: 1, 7: 2}
    np.testing.assert_array_equal(table.group("c"), [2])


def test_missing_frequency_follows_from_the_image_count(tiny):
    categories = tiny[0]["categories"]
    for category, count in zip(categories, (10, 100, 101), strict=True):
        del category["frequency"]
        category["image_count"] = count
    assert category_table(categories).frequency == ("r", "f", "c")


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(AnnotationError, match="nothing.json: no such file"):
        read_json(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(AnnotationError, match="half.json: not a json file"):
        read_json(tmp_path / "half.json")


def test_image_files_are_found_by_url_or_name_and_never_outside_the_folder(tmp_path):
    (tmp_path / "images" / "val2017").mkdir(parents=True)
    (tmp_path / "images" / "val2017" / "7.jpg").touch()
    (tmp_path / "images" / "8.jpg").touch()
    (tmp_path / "9.jpg").touch()
    folder = tmp_path / "images"
    assert image_file({"id": 7, "coco_url": "http://x/val2017/7.jpg"}, folder) == folder / "val2017" / "7.jpg"
    assert image_file({"id": 8, "file_name": "somewhere/8.jpg"}, folder) == folder / "8.jpg"
    with pytest.raises(FileNotFoundError, match="image 9"):
        image_file({"id": 9, "file_name": "../9.jpg"}, folder)


def test_folders_of_images_may_be_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "7.jpg").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "val2017").symlink_to(tmp_path / "elsewhere")
    found = image_file({"id": 7, "coco_url": "http://x/val2017/7.jpg"}, tmp_path / "images")
    assert found == tmp_path / "images" / "val2017" / "7.jpg"


@pytest.mark.parametrize("place", ["COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"])
@pytest.mark.parametrize("url", ["", "http://images.cocodataset.org/val2017/000000000042.jpg"])
def test_version_05_finds_its_images_in_coco_2014(tmp_path, place, url):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    image = {"id": 42, "file_name": "COCO_val2014_000000000042.jpg", "coco_url": url}
    assert image_file(image, tmp_path) == tmp_path / place


@pytest.mark.parametrize("place", ["val2017", "train2017", "."])
def test_version_05_finds_its_images_in_coco_2017(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "000000000042.jpg").touch()
    image = {"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}
    assert image_file(image, tmp_path) == tmp_path / place / "000000000042.jpg"


def test_every_real_version_05_image_has_a_place_in_the_2017_archives(shared, tmp_path):
    content = json.loads((shared / "data" / "lvis_api" / "lvis_val_100.json").read_text())
    (tmp_path / "val2017").mkdir()
    for image in content["images"]:
        (tmp_path / "val2017" / f"{image['id']:012d}.jpg").touch()
        assert image_file(image, tmp_path).name == f"{image['id']:012d}.jpg"


@pytest.mark.parametrize("name", [".", "..", "/", "/etc/hostname", "../../etc/hostname", "x" * 300])
def test_odd_names_never_find_a_file(tmp_path, name):
    with pytest.raises(OSError):
        image_file({"id": 1, "file_name": name}, tmp_path)


def test_a_table_survives_its_file(tiny):
    table = category_table(tiny[0]["categories"])
    again = category_table(json.loads(json.dumps(table.as_dicts())))
    for name in ("ids", "names", "frequency", "image_count", "instance_count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


@pytest.mark.parametrize(
    ("table", "classes", "groups", "instances"),
    [("v1", 1203, (337, 461, 405), 1_270_141), ("v0.5", 1230, (454, 461, 315), 693_958)],
)
def test_published_category_tables(shared, table, classes, groups, instances):
    rows = json.loads((shared / "data" / "lvis_tables" / f"lvis_{table}_train_cat_info.json").read_text())
    found = category_table([{k: v for k, v in row.items() if k != "frequency"} for row in rows])
    assert len(found) == classes and tuple(len(found.group(g)) for g in "rcf") == groups
    assert found.instance_count.sum() == instances


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("a.JPG", "a.jpg"),
        ("a.jpg", "a.JPG"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("b/cafe\u0301.JPG", "b/caf\u00e9.jpg"),
        ("train/a.jpg", "train\\a.jpg"),
        ("a.jpg", "C:\\photos\\a.jpg"),
        ("train/a.jpg", "/home/me/data/train/a.jpg"),
        ("a.jpg", "..\\photos\\a.jpg"),
    ],
)
def test_names_that_people_take_for_the_same_are_found(tmp_path, there, named):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert image_file({"id": 1, "file_name": named}, tmp_path) == tmp_path / there


def test_a_picture_in_another_folder_than_named_is_told(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    assert not find_image({"id": 1, "file_name": "train/a.jpg"}, tmp_path).elsewhere
    assert find_image({"id": 2, "file_name": "train/b.jpg"}, tmp_path).elsewhere
    assert not find_image({"id": 1, "file_name": "train/a.jpg"}, tmp_path / "train").elsewhere
    assert not find_image({"id": 2, "coco_url": "http://x/train2017/b.jpg"}, tmp_path).elsewhere
