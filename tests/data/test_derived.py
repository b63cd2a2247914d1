"""What follows from the data where a config leaves it open, and folders in the layouts of common trainers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import base, write_cases
from PIL import Image

from c2am_jax.checks import WrongSetting
from c2am_jax.config import load_experiment, own_data, own_data_variant, parse
from c2am_jax.data.derived import shapes
from c2am_jax.data.folders import find_splits
from c2am_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    write_cases(tmp_path)
    return tmp_path / "base"


def config_of(folder, **changes):
    config = own_data()
    files = {"data.annotations": f"{folder}/val.json", "data.val_annotations": f"{folder}/val.json"}
    config.update_from_flattened_dict(files | {"data.images": f"{folder}/images"} | changes)
    return config


def test_three_flags_make_an_experiment(folder):
    lines = []
    experiment = parse(config_of(folder), lines.append)
    data, model, train = experiment.data, experiment.model, experiment.train
    assert model.num_classes == 3 and experiment.name == "own_base"
    assert data.name.startswith("base_") and (data.canvas, data.max_instances) == (128, 8)
    assert data.test_short_side == 160 and max(data.short_sides) == 160 and min(data.short_sides) == 128
    assert data.buckets == ((160, 224),)  # all pictures are 96x128
    assert train.init == "coco:mask_rcnn_r50_fpn" and train.reset_classifier
    assert train.batch_size == 16 and train.epochs == 1500  # 8 devices; one step an epoch
    file = f"{folder}/val.json"
    told = f"derived from {file} (4 pictures, 8 objects), sizes also from {file} (4 pictures); --config.KEY=VALUE sets"
    assert lines[0].startswith(told)
    assert "  model.num_classes=3" in lines and "  data.buckets=((160,224),)" in lines


def test_sizes_count_the_validation_pictures_too_and_say_so(folder):
    content = json.loads((folder / "val.json").read_text())
    larger = [image | {"height": 480, "width": 640} for image in content["images"]]
    (folder / "large.json").write_text(json.dumps(content | {"images": [*larger, larger[0] | {"id": 99}]}))
    lines = []
    data = parse(config_of(folder, **{"data.val_annotations": f"{folder}/large.json"}), lines.append).data
    assert (data.test_short_side, data.canvas) == (800, 640)  # 5 of the 9 pictures are photos, and the largest
    assert f"sizes also from {folder}/large.json (5 pictures)" in lines[0]
    alone = {"data.val_annotations": "", "train.eval_every": 0}
    assert parse(config_of(folder, **alone), lines.append).data.canvas == 128
    assert not any("sizes also" in line for line in lines[1:])


def test_what_a_flag_sets_is_not_derived(folder):
    lines = []
    changes = {"model.num_classes": 5, "data.test_short_side": 96, "data.buckets": ((96, 128),), "train.steps": 40}
    experiment = parse(config_of(folder, **changes), lines.append)
    assert experiment.model.num_classes == 5 and experiment.data.buckets == ((96, 128),)
    assert max(experiment.data.short_sides) == 96 and experiment.train.checkpoint_every == 4
    assert not any("num_classes" in line or "buckets" in line for line in lines)
    assert not any("train.epochs" in line for line in lines) and experiment.train.epochs == 1500  # no effect: not told


def test_other_files_are_another_prepared_set(folder):
    first = parse(config_of(folder)).data.name
    content = json.loads((folder / "val.json").read_text())
    content["annotations"].pop()
    (folder / "val.json").write_text(json.dumps(content))
    assert parse(config_of(folder)).data.name != first


def test_pictures_elsewhere_are_another_prepared_set_and_a_folder_has_to_be_there(folder):
    first = parse(config_of(folder)).data.name
    (folder / "images").rename(folder / "moved")
    assert parse(config_of(folder, **{"data.images": f"{folder}/moved"})).data.name != first
    with pytest.raises(UserError, match=r"config\.data\.images=.*/images: no such folder of pictures"):
        parse(config_of(folder))


@pytest.mark.parametrize(
    ("annotations", "told"),
    [([], "the list 'annotations' is empty"), ([{"id": 1, "image_id": 1, "category_id": 1}], "bbox None is not")],
)
def test_without_an_object_to_train_on_the_reason_is_told_before_any_work(folder, annotations, told):
    content = json.loads((folder / "val.json").read_text())
    (folder / "val.json").write_text(json.dumps(content | {"annotations": annotations}))
    with pytest.raises(UserError, match=f"val.json: no object to train on: .*{told}"):
        parse(config_of(folder))


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("tiny", "own_data:tiny: 'tiny' is neither a size nor a loss: behind the colon stands small, a loss, or both"),
        ("small+softmx", "own_data:small+softmx: 'softmx' is neither a size nor a loss"),
        ("small+seesaw+softmax", "own_data:small+seesaw+softmax: two losses, seesaw and softmax: behind the colon"),
        ("nowhere.losses:mine", "loss 'nowhere.losses:mine': cannot import 'nowhere.losses'"),
    ],
)
def test_a_wrong_word_behind_the_colon_is_named_with_what_is_allowed(argument, named):
    done = subprocess.run(
        [sys.executable, "train.py", f"--config=configs/own_data.py:{argument}"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ") and named in lines[0], (
        done.stderr
    )
    if "neither" in named:
        assert "losses are softmax, cosine, c2am" in lines[0] and "MODULE:FUNCTION" in lines[0]


@pytest.mark.parametrize(
    ("argument", "loss", "size"),
    [("", "c2am", 50), ("small", "c2am", 10), ("seesaw", "seesaw", 50), ("softmax+small", "softmax", 10)],
)
def test_the_word_behind_the_colon_chooses_loss_and_size(argument, loss, size):
    config = own_data_variant(argument)
    assert (config.loss.name, config.model.backbone.depth) == (loss, size)


def test_photos_get_the_papers_sizes():
    hw = np.array([(480, 640)] * 60 + [(640, 480)] * 30 + [(427, 640)] * 10 + [(300, 640)] * 2)
    assert shapes(hw, 800, 1333) == ((800, 1088), (1088, 800), (800, 1344))
    assert shapes(np.array([(100, 100)] * 5), 160, 267) == ((160, 160),)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data.annotations": ""}, "config.data.annotations: give --config.data.annotations=FILE"),
        ({"data.images": ""}, "config.data.images: give --config.data.images=DIR"),
        ({"data.val_annotations": ""}, "config.data.val_annotations: give .* or --config.train.eval_every=0"),
        ({"data.annotations": "nowhere.json"}, "nowhere.json: no such file"),
        ({"data.folder": "nowhere"}, "config.data.folder=nowhere: no such folder"),
    ],
)
def test_files_that_are_not_named_or_not_there_are_one_line(folder, changes, named):
    with pytest.raises((WrongSetting, UserError), match=named):
        parse(config_of(folder, **changes))


def test_without_evaluation_no_validation_set_is_needed(folder):
    experiment = parse(config_of(folder, **{"data.val_annotations": "", "train.eval_every": 0}))
    assert experiment.data.val_annotations == "" and experiment.model.num_classes == 3


LAYOUTS = {
    "coco": ("annotations/instances_{}2017.json", "{}2017", ("train", "val")),
    "coco without a year": ("annotations/instances_{}.json", "{}", ("train", "val", "test")),
    "labelling service": ("{}/_annotations.coco.json", "{}", ("train", "valid", "test")),
    "plain": ("{}.json", "images", ("train", "val")),
    "images by split": ("annotations/{}.json", "images/{}", ("train", "val", "test")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_in_usual_layouts_are_found(tmp_path, layout):
    name, images, splits = LAYOUTS[layout]
    for split in splits:
        file, folder = tmp_path / name.format(split), tmp_path / images.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(base()))
        for image in base()["images"]:
            Image.new("RGB", (128, 96)).save(folder / image["file_name"])
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    found = find_splits(tmp_path)
    assert set(found) == {"train", "val"} | ({"test"} if "test" in splits else set())
    for (split, there), written in zip(found.items(), splits, strict=True):
        assert there.annotations == tmp_path / name.format(written), split
        assert there.images == tmp_path / images.format(written), split
    config = own_data()
    config.data.folder = str(tmp_path)
    assert parse(config).data.images == str(tmp_path / images.format("train"))


def test_a_folder_without_a_split_or_its_pictures_is_named(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(base()))
    with pytest.raises(UserError, match="train.json: its first picture is in none of"):
        find_splits(tmp_path)
    Image.new("RGB", (128, 96)).save(tmp_path / "s2_000.jpg")
    with pytest.raises(UserError, match="no json of the val split there"):
        find_splits(tmp_path)


def test_a_config_file_of_ones_own_is_what_the_guide_shows(folder, tmp_path):
    guide = Path(__file__).resolve().parents[2] / "docs" / "your_own_data.md"
    code = re.search(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)[1]
    (folder / "train.json").write_text((folder / "val.json").read_text())
    file = tmp_path / "my_config.py"
    file.write_text(code.replace('"shapes"', repr(str(folder))))
    experiment = load_experiment(str(file))
    assert experiment.name == "my_run" and experiment.train.epochs == 24 and experiment.model.num_classes == 3
