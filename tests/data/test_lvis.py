"""Reading the LVIS layout, and saying what is wrong with a file."""

import json

import numpy as np
import pytest

from c2am_jax.data.lvis import AnnotationError, image_file, read_annotations


def test_classes_are_in_category_id_order(tiny):
    _, write = tiny
    found = read_annotations(write()[0])
    np.testing.assert_array_equal(found.categories.ids, [2, 5, 7])
    assert found.categories.frequency == ("r", "f", "c")
    assert found.categories.class_of == {2: 0, 5: 1, 7: 2}
    assert [a["id"] for a in found.by_image[1]] == [1, 2]
    np.testing.assert_array_equal(found.categories.group("c"), [2])


def test_missing_frequency_follows_from_the_image_count(tiny):
    content, write = tiny
    for category, count in zip(content["categories"], (10, 100, 101), strict=True):
        del category["frequency"]
        category["image_count"] = count
    assert read_annotations(write()[0]).categories.frequency == ("r", "f", "c")


def spoil(content, what):
    first = content["annotations"][0]
    if what == "unknown category":
        first["category_id"] = 99
    elif what == "unknown image":
        first["image_id"] = 99
    elif what == "no bbox":
        del first["bbox"]
    elif what == "twice":
        content["annotations"].append(first)
    elif what == "no height":
        del content["images"][0]["height"]
    elif what == "no place":
        del content["images"][0]["coco_url"]
    elif what == "no categories":
        del content["categories"]
    elif what == "short box":
        first["bbox"] = [1, 2, 3]
    elif what == "words for a box":
        first["bbox"] = [1, 2, "wide", 3]
    elif what == "id in a list":
        first["id"] = [1]
    elif what == "flat image":
        content["images"][0]["height"] = 0


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("unknown category", "annotation 1: category id 99 is not in 'categories'"),
        ("unknown image", "annotation 1: image id 99 is not in 'images'"),
        ("no bbox", "annotation 1: no 'bbox'"),
        ("twice", "annotations: id 1 appears twice"),
        ("words for a box", "annotation 1: bbox is not"),
        ("id in a list", "annotations: id [1] is not an integer"),
        ("no height", "image 1: no positive integer 'height'"),
        ("flat image", "image 1: no positive integer 'height'"),
        ("no place", "image 1: neither 'file_name' nor 'coco_url'"),
        ("no categories", "no list 'categories'"),
        ("short box", "annotation 1: bbox is not"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tiny, what, named):
    content, write = tiny
    spoil(content, what)
    path, _ = write()
    with pytest.raises(AnnotationError) as error:
        read_annotations(path)
    assert named in str(error.value) and str(path) in str(error.value)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(AnnotationError, match="nothing.json: no such file"):
        read_annotations(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(AnnotationError, match="half.json: not a json file"):
        read_annotations(tmp_path / "half.json")


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
    from c2am_jax.data.lvis import category_table

    table = read_annotations(tiny[1]()[0]).categories
    again = category_table(json.loads(json.dumps(table.as_dicts())))
    for name in ("ids", "names", "frequency", "image_count", "instance_count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


@pytest.mark.parametrize(
    ("table", "classes", "groups", "instances"),
    [("v1", 1203, (337, 461, 405), 1_270_141), ("v0.5", 1230, (454, 461, 315), 693_958)],
)
def test_published_category_tables(shared, table, classes, groups, instances):
    from c2am_jax.data.lvis import category_table

    rows = json.loads((shared / "data" / "lvis_tables" / f"lvis_{table}_train_cat_info.json").read_text())
    found = category_table([{k: v for k, v in row.items() if k != "frequency"} for row in rows])
    assert len(found) == classes and tuple(len(found.group(g)) for g in "rcf") == groups
    assert found.instance_count.sum() == instances
