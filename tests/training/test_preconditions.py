"""What is known at the start is said at the start; and a run resumes where it was, or is refused."""

import dataclasses
import json
import os
import re
import shutil
import signal
from types import SimpleNamespace

import pytest
from tiny import tiny_config

from c2am_jax.errors import Stopped, UserError
from c2am_jax.training import loop, preconditions
from c2am_jax.training.loop import train


def configured(glyph_folder, **values):
    settings = {"batch_size": 8, "checkpoint_every": 100, "eval_every": 0} | values
    data = {"data.name": "small", "data.dir": str(glyph_folder)}
    return tiny_config().changed(data | {f"train.{name}": value for name, value in settings.items()})


def steps_logged(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def stop_at(monkeypatch, step):
    monkeypatch.setattr(loop.StopRequest, "reached", lambda self, done: done == step)


@pytest.mark.parametrize(
    ("before", "stopped", "after", "last"), [(8, 3, 16, 9), pytest.param(16, 2, 8, 11, marks=pytest.mark.slow)]
)
def test_another_batch_size_ends_after_the_same_epochs(
    glyph_folder, tmp_path, monkeypatch, before, stopped, after, last
):
    """4 epochs of 24 images: 12 steps with 8 images, 8 with 16; the change comes after one epoch, 3 or 2 steps."""
    shown = []
    stop_at(monkeypatch, stopped)
    with pytest.raises(Stopped):
        train(configured(glyph_folder, epochs=4, batch_size=before), tmp_path)
    monkeypatch.undo()
    stop_at(monkeypatch, stopped + 1)  # and what was resumed with another size is resumed again
    with pytest.raises(Stopped):
        train(configured(glyph_folder, epochs=4, batch_size=after), tmp_path)
    monkeypatch.undo()
    train(configured(glyph_folder, epochs=4, batch_size=after), tmp_path, show=shown.append)
    assert steps_logged(tmp_path) == list(range(1, last + 1))
    assert f"{last} steps" in shown[0] and f"resumed from step {stopped + 1}" in shown[0]


def test_a_refused_length_or_batch_size_leaves_the_run_as_it_was(glyph_folder, tmp_path, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        train(configured(glyph_folder, steps=4), tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"batch_size=16, but this run trained with 8 up to step 2 .* keep 8, or give"):
        train(configured(glyph_folder, steps=4, batch_size=16), tmp_path)
    with pytest.raises(UserError, match=r"is at step 2 already, past the end at step 1 that is asked for: give"):
        train(configured(glyph_folder, steps=1), tmp_path)
    assert steps_logged(tmp_path) == [1, 2]
    kept = json.loads((tmp_path / "config.json").read_text())["train"]
    assert (kept["batch_size"], kept["steps"]) == (8, 4)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(glyph_folder, tmp_path):
    config = configured(glyph_folder, steps=1)
    train(config, tmp_path)
    for file in (tmp_path / "checkpoints" / "1").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(UserError, match=r"no checkpoint is whole; damaged: 1 "):
        train(config, tmp_path)
    for _ in range(2):  # by now it is set aside
        with pytest.raises(UserError, match=r"no checkpoint there is whole; damaged: checkpoints_damaged/1_\d+"):
            train(config, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("val_annotations", "typo/val.json", "typo/val.json: no such file"),
        ("annotations", "typo/train.json", "typo/train.json: no such file"),
        ("name", "nothing", r"nothing/\w+.json: no such file"),
    ],
)
def test_wrong_paths_are_said_before_the_first_step(glyph_folder, tmp_path, key, value, named):
    config = configured(glyph_folder, steps=1, eval_every=-1).changed({f"data.{key}": value})
    with pytest.raises(UserError, match=named):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_users_own_file_is_named(glyph_folder, tmp_path):
    own = tmp_path / "own.json"
    shutil.copyfile(glyph_folder / "small" / "annotations_train.json", own)
    config = configured(glyph_folder, steps=1).changed({"data.annotations": str(own), "model.num_classes": 7})
    with pytest.raises(UserError, match=r"own.json has 100 categories: set --config.model.num_classes=100"):
        train(config, tmp_path / "run")


def test_pictures_that_can_not_be_evaluated_are_said_before_the_first_step(glyph_folder, tmp_path, monkeypatch):
    opened = preconditions.open_dataset

    def wide(data, split):
        found = opened(data, split)
        return dataclasses.replace(found, image_hw=found.image_hw * [1, 4]) if split == "val" else found

    monkeypatch.setattr(preconditions, "open_dataset", wide)
    config = configured(glyph_folder, steps=1, eval_every=-1).changed({"data.max_side": 512})
    with pytest.raises(UserError, match=r"data.buckets: none of the padded shapes .* holds an image resized to"):
        train(config, tmp_path)


def test_what_the_users_files_cost_or_lack_is_noted_before_the_first_step(glyph_folder, tmp_path):
    """A canvas smaller than pictures of 128 pixels that train at 64; a validation set of crowd regions only."""
    small, files = glyph_folder / "small", {}
    for split in ("train", "val"):
        content = json.loads((small / f"annotations_{split}.json").read_text())
        for annotation in content["annotations"] if split == "val" else ():
            annotation["iscrowd"] = 1
        files[split] = tmp_path / f"{split}.json"
        files[split].write_text(json.dumps(content))
    keys = {"name": "own", "dir": tmp_path / "d", "images": small / "images", "val_annotations": files["val"]}
    keys |= {"annotations": files["train"]}
    config = configured(glyph_folder, steps=1, eval_every=-1).changed({f"data.{k}": str(v) for k, v in keys.items()})
    training, notes = preconditions.open_splits(config)
    crowds = len(json.loads(files["val"].read_text())["annotations"])
    (warning,) = notes
    assert warning.startswith(
        f"warning: no object to score in {files['val']}: left out: {crowds} x crowd region, evaluation ignores it, for "
    )
    _, notes = preconditions.open_splits(config.changed({"data.canvas": 48}))
    count = len(training)
    assert notes[0] == (
        f"warning: {count} of {count} training pictures lose resolution: made smaller to data.canvas=48, then resized "
        "to more; --config.data.canvas=64 keeps it, and takes memory"
    )
    assert notes[1:] == [warning]

    content = json.loads(files["train"].read_text())
    names = content["categories"]
    names[1]["name"] = names[0]["name"]
    files["train"].write_text(json.dumps(content))
    named = f"the training set ({files['train']}): categories go by name, but more than one is called "
    named += f"{names[0]['name']!r} (ids {names[0]['id']}, {names[1]['id']}); rename them"
    with pytest.raises(UserError, match=f"^{re.escape(named)}$"):
        preconditions.open_splits(config.changed({"data.name": "twice"}))


def test_a_disk_without_room_for_the_checkpoints_is_named(glyph_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(preconditions.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"0.00 GB are free, but the checkpoints of this run need .*train.keep=3"):
        train(configured(glyph_folder, steps=1), tmp_path)


def test_ctrl_c_in_an_evaluation_ends_at_once_and_the_next_run_evaluates(glyph_folder, tmp_path, monkeypatch):
    config, evaluate = configured(glyph_folder, steps=2, eval_every=1), loop.evaluate

    def interrupted(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    with pytest.raises(Stopped, match="step 1 is saved"):
        train(config, tmp_path)
    monkeypatch.undo()
    train(config, tmp_path)
    assert steps_logged(tmp_path)[-1] == 2 and (tmp_path / "eval" / "2" / "metrics.json").is_file()
