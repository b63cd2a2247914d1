"""Classes of one table in another: by name, whatever the ids; what is missing, unknown or misspelt is said."""

import json

import pytest

from c2am_jax.data.class_names import match, read_classes
from c2am_jax.data.lvis import AnnotationError, category_table
from c2am_jax.data.lvis_scan import scan
from c2am_jax.errors import UserError


def table(**ids):
    return category_table([{"id": number, "name": name} for name, number in ids.items()])


def matched(ours, theirs):
    return match(ours, theirs, "the detector", "val.json")


def test_equal_tables_say_nothing():
    found = matched(table(a=1, b=5), table(a=1, b=5))
    assert found.row.tolist() == [0, 1] and found.ids.tolist() == [1, 5] and not found.lines()


def test_names_under_other_ids_are_found():
    found = matched(table(a=1, b=2, c=3), table(c=1, a=7, b=9))
    assert found.ids.tolist() == [7, 9, 1] and found.column.tolist() == [2, 0, 1]
    assert found.new_id == {1: 7, 2: 9, 3: 1}
    assert found.lines() == ["val.json has other category ids than the detector: classes go by name"]


def test_a_subset_and_unknown_names_are_told():
    found = matched(table(a=1, b=2, hot_dog=3), table(a=1, zebra=4, **{"Hot dog": 3}))
    assert found.row.tolist() == [0, -1, -1] and found.new_id == {1: 1, 2: None, 3: None}
    assert found.lines() == [
        "2 classes of val.json are unknown to the detector and can only score 0: 'Hot dog', 'zebra' "
        "('Hot dog' may be 'hot_dog': rename it)",
        "val.json has 1 of the 3 classes of the detector: detections of the others do not count",
    ]


def test_no_name_in_common_is_an_error_that_shows_some_of_both():
    with pytest.raises(UserError, match=r"no class name in common: 'A' there, 'a' here \('A' may be 'a'"):
        matched(table(a=1), table(A=1))


def test_a_name_twice_is_an_error_unless_the_tables_are_the_same():
    twice = category_table([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])
    assert matched(twice, twice).ids.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"val.json: .*more than one is called 'a' \(ids 1, 2\); rename"):
        matched(table(a=1, b=2), twice)


def test_names_that_only_one_has_are_the_reason_if_nothing_is_in_common():
    nameless = category_table([{"id": 1}, {"id": 4}])
    for ours, theirs, name in ((nameless, table(a=1), "the detector"), (table(a=1), nameless, "val.json")):
        with pytest.raises(UserError, match=f"; the categories of {name} have no names, only ids: give each the name"):
            matched(ours, theirs)
    with pytest.raises(UserError, match="compared letter by letter$"):
        matched(nameless, category_table([{"id": 7}]))


def test_classes_are_read_from_a_list_a_json_or_a_workdir(tmp_path):
    rows = [{"id": 3, "name": "a"}]
    (tmp_path / "categories.json").write_text(json.dumps(rows))
    (tmp_path / "train.json").write_text(json.dumps({"images": [], "categories": rows}))
    for place in (tmp_path, tmp_path / "categories.json", tmp_path / "train.json"):
        assert read_classes(place).names == ("a",)
    with pytest.raises(AnnotationError, match="no such file"):
        read_classes(tmp_path / "none")


def test_classes_of_a_json_that_does_not_tell_how_frequent_they_are_are_counted(tmp_path):
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 9, "width": 9} for n in range(1, 13)]
    box = {"category_id": 4, "bbox": [0, 0, 5, 5], "area": 25, "segmentation": [[0, 0, 5, 0, 5, 5]]}
    boxes = [{**box, "id": image["id"], "image_id": image["id"]} for image in images]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 9, "name": "b"}, {"id": 4, "name": "a"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    found = read_classes(tmp_path / "train.json")
    assert found.names == ("a", "b") and found.image_count.tolist() == [12, 0] and found.frequency == ("c", "r")


def test_groups_of_a_validation_json_come_from_the_training_category_of_its_name(tmp_path):
    image = {"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "segmentation": []}
    train = [{"id": 1, "name": "a", "frequency": "f"}, {"id": 2, "name": "b", "frequency": "r"}]
    val = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}]
    for name, categories in (("train", train), ("val", val)):
        content = {"images": [image], "annotations": [box], "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = scan(tmp_path / "val.json", training=tmp_path / "train.json").categories
    assert found.ids.tolist() == [1, 2] and found.names == ("b", "a") and found.frequency == ("r", "f")
