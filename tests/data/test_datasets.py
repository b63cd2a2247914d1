"""From a config to a data set, prepared on first use."""

import pytest

from c2am_jax.data.datasets import MissingDataset, open_dataset
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError


def config_of(tmp_path, **values):
    return DataSettings(dir=str(tmp_path / "data"), **values)


def test_a_missing_data_set_says_what_to_download_where(tmp_path):
    with pytest.raises(MissingDataset) as error:
        open_dataset(config_of(tmp_path), "val")
    for named in ("lvis_v1_val.json", "lvisdataset.org", "images.cocodataset.org", "glyphs_c2am"):
        assert named in str(error.value)
    assert "lvis_v1_val.json.zip from https://www.lvisdataset.org/dataset and unpack them so that" in str(error.value)
    with pytest.raises(MissingDataset, match=r"annotations_trainval2017.zip from \S+ and unpack it so that"):
        open_dataset(config_of(tmp_path, name="coco"), "val")


@pytest.mark.parametrize(("name", "more"), [("glyphs", ", under another --config.data.name=NAME"), ("lvis_v1", "")])
def test_data_without_a_test_set_says_how_to_name_one(tmp_path, name, more):
    with pytest.raises(MissingDataset) as error:
        open_dataset(config_of(tmp_path, name=name), "test")
    assert str(error.value) == (
        f"config.eval.split=test: {name} has no test set; name one by --config.data.test_annotations=FILE and its "
        f"pictures by --config.data.test_images=DIR{more}"
    )
    with pytest.raises(MissingDataset, match="none.json"):
        open_dataset(config_of(tmp_path, name="mine", test_annotations="none.json"), "test")
    assert not list(tmp_path.iterdir())


def test_first_use_prepares_and_second_use_opens(tiny, tmp_path):
    annotations, images = tiny[1]()
    config = config_of(tmp_path, name="mine", annotations=str(annotations), images=str(images))
    first = open_dataset(config, "train")
    stamp = (first.folder / "report.json").stat().st_mtime_ns
    second = open_dataset(config, "train")
    assert len(second) == 4 and (second.folder / "report.json").stat().st_mtime_ns == stamp


def test_what_first_use_leaves_out_is_told_once(tiny, tmp_path, caplog):
    tiny[0]["annotations"][0]["category_id"] = 99
    annotations, images = tiny[1]()
    data = DataSettings("tiny", str(tmp_path / "data"), str(annotations), str(images))
    open_dataset(data, "train")
    told = "tiny_train: skipped, annotation of an unknown category: 1, for example annotation 1: category id 99"
    assert caplog.text.count(told) == 1 and caplog.text.count("unknown category") == 1
    caplog.clear()
    open_dataset(data, "train")
    assert "unknown category" not in caplog.text


def test_a_standard_file_that_changed_after_preparation_is_noticed(tiny, tmp_path):
    content, write = tiny
    config = config_of(tmp_path, name="mine", images=str(tmp_path / "images"))
    standard = tmp_path / "data" / "mine" / "train.json"
    standard.parent.mkdir(parents=True)
    write()[0].rename(standard)
    assert len(open_dataset(config, "train")) == 4
    content["annotations"].pop()
    write()[0].rename(standard)
    with pytest.raises(AnnotationError, match="prepared from another file"):
        open_dataset(config, "train")
    standard.unlink()  # records alone are enough, as long as nothing contradicts them
    assert len(open_dataset(config, "train")) == 4


def test_a_named_file_that_is_gone_is_an_error_though_records_are_there(tiny, tmp_path):
    annotations, images = tiny[1]()
    config = config_of(tmp_path, name="mine", annotations=str(annotations), images=str(images))
    open_dataset(config, "train")
    annotations.unlink()
    with pytest.raises(MissingDataset, match="json: no such file; name it with --config.data.annotations=PATH"):
        open_dataset(config, "train")


def test_pictures_that_were_left_out_earlier_are_told_again(tiny, tmp_path, caplog):
    annotations, images = tiny[1]()
    broken = sorted(images.rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:300])
    config = config_of(tmp_path, name="mine", annotations=str(annotations), images=str(images))
    assert len(open_dataset(config, "train")) == 3
    caplog.clear()
    found = open_dataset(config, "train")
    assert "left out 1 x image" in caplog.text and f"delete {found.folder}" in caplog.text


def test_a_folder_without_one_usable_image_is_an_error_of_one_line(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    config = config_of(tmp_path, name="mine", annotations=str(tiny[1]()[0]), images=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="not one of its images is usable.*image 1"):
        open_dataset(config, "train")


def test_other_data_in_the_place_of_the_glyphs_is_an_error_of_one_line(tmp_path):
    (tmp_path / "data" / "glyphs").mkdir(parents=True)
    with pytest.raises(UserError, match="holds other data"):
        open_dataset(config_of(tmp_path, name="glyphs"), "train")


def test_a_validation_file_without_groups_takes_those_of_training(tiny, tmp_path):
    content, write = tiny
    annotations, images = write()
    training = annotations.rename(tmp_path / "train.json")
    for category in content["categories"]:
        del category["frequency"]
    validation, _ = write()
    config = config_of(
        tmp_path, name="mine", annotations=str(training), val_annotations=str(validation), images=str(images)
    )
    groups = [open_dataset(config, split).categories.frequency for split in ("train", "val")]
    assert groups == [("r", "f", "c")] * 2
