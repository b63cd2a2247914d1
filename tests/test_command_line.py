"""train.py and eval.py as commands: configs, overrides, and one line for wrong input."""

import dataclasses
import errno
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from c2am_jax.config import load_experiment, parse
from c2am_jax.data.datasets import MissingDataset, open_dataset
from c2am_jax.data.settings import DataSettings
from c2am_jax.models.architecture import MaskRCNNSettings
from c2am_jax.storage import StorageError
from c2am_jax.training.preconditions import check_files

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "own_data")  # which needs data


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode, lines, done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_and_names_its_command(path):
    module = load(path)
    config = module.get_config()
    assert config.name == path.stem and f"--config configs/{path.name}" in module.__doc__
    assert parse(config).as_dict() == config.to_dict()


def test_the_papers_settings():
    config = load(ROOT / "configs" / "maskrcnn_r50_c2am.py").get_config()
    assert parse(config).model == MaskRCNNSettings()
    assert config.loss.to_dict()["scale"] == 30 and config.loss.alpha == 0.5
    assert (config.train.epochs, config.train.base_lr, tuple(config.train.lr_drops)) == (24, 0.02, (16 / 24, 22 / 24))
    old = load(ROOT / "configs" / "maskrcnn_r101_ce.py").get_config("v05")
    assert (old.model.num_classes, old.model.backbone.depth, old.data.name) == (1230, 101, "lvis_v05")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train.py",), "give --config NAME_OR_FILE, one of these names or a file of your own"),
        (("train.py", "--config=glyphs_c2am", "--config.train.lr_epochs=(8,11)"), "config.train.lr_drops says where"),
        (("train.py", "--config=configs/nothing.py"), "glyphs_c2am"),
        (("train.py", "--config=configs/glyphs_c2am.py", "--config.loss.alhpa=1"), "no such key in the config"),
        (("train.py", "--config=configs/maskrcnn_r50_c2am.py:v2"), "v2"),
        (("train.py", "--config=configs/glyphs_c2am.py", "loss.alpha=1"), "unexpected argument"),
        (("train.py", "--config=configs/glyphs_c2am.py", "--train.steps=3"), "are flags like --config.KEY=VALUE"),
        (("train.py", "--config=configs/glyphs_c2am.py:glyphs"), "takes no argument behind ':' in --config"),
        (
            ("train.py", "--dry_run", "--config=glyphs_c2am", "--config.train.batch_size=0"),
            "config.train.batch_size=0: must be a whole number of at least 1",
        ),
        (
            ("train.py", "--dry_run", "--config=glyphs_c2am", "--config.data.buckets=(256,320)"),
            "config.data.buckets=(256, 320): must be padded shapes such as ((800, 1344), (1344, 800))",
        ),
        (
            ("eval.py", "--config=glyphs_c2am", "--config.eval.batch_size=0"),
            "config.eval.batch_size=0: must be a whole number of at least 1",
        ),
        (
            ("train.py", "--dry_run", "--config=glyphs_c2am", "--topology=v5e:3x3"),
            "--topology v5e:3x3: no such topology; there are v4:2x2x1, v5e:4x4",
        ),
        (
            ("train.py", "--config=glyphs_c2am", "--topology=v5e:4x4"),
            "--topology, --slices, --program and --hlo go with --dry_run",
        ),
        (("train.py", "--config=configs/maskrcnn_r50_c2am.py", "--config.data.dir=/nonexistent"), "lvisdataset.org"),
        (
            ("train.py", "--config=glyphs_c2am", "--config.train.steps=abc"),
            "config.train.steps=abc: must be a whole number",
        ),
        (
            ("train.py", "--config=glyphs_c2am", "--config.train.base_lr=x"),
            "error: config.train.base_lr=x: must be a number",
        ),
        (
            ("train.py", "--config=glyphs_c2am", "--config.model.box_head.class_agnostic=maybe"),
            "error: config.model.box_head.class_agnostic=maybe: must be True or False",
        ),
        (("train.py", "--config=glyphs_c2am", "--slices=two"), "error: --slices=two: must be a whole number"),
        (("eval.py",), "give --workdir DIR of a run"),
        (("eval.py", "--step=first"), "--step first: must be a whole number (a checkpoint's step), or best"),
        (("eval.py", "--config=glyphs_c2am", "--categories=c.csv"), "--categories goes with --annotations and"),
        (("eval.py", "--config=glyphs_c2am", "--fixed"), "--fixed goes with --annotations and --predictions"),
        (("eval.py", "--config=glyphs_c2am", "--iou_type=bbox"), "--iou_type goes with --annotations and"),
        (("eval.py", "--annotations=none.json", "--predictions=none.json"), "none.json: no such file"),
        (("eval.py", "--config=configs/glyphs_c2am.py", "--workdir=/nonexistent"), "no run there"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, named):
    status, lines, output = command(*arguments)
    assert status == 2, output
    assert len(lines) == 1 and named in lines[0], output
    assert "Traceback" not in output


def test_without_a_config_train_lists_those_there_are_with_a_line_each():
    _, _, output = command("train.py")
    listed = dict(line.split(maxsplit=1) for line in output.splitlines() if line.startswith("  "))
    assert {path.stem for path in CONFIGS} <= set(listed) and "methods/eql" in listed
    assert listed["glyphs_c2am"].startswith("A small Mask R-CNN with C2AM")


def test_help_names_the_flags_of_several_hosts():
    status, _, output = command("train.py", "--help")
    wanted = ("--distributed", "--coordinator=", "--processes=", "--process=")
    assert status == 0 and all(flag in output for flag in wanted)


COMMANDS = {
    "predict": (("{tmp}/none.jpg", "--workdir=/none", "--out={tmp}"), "none"),
    "export": (("--workdir=/none", "--out={tmp}/x"), "/none: no run there"),
    "data.prepare": (
        ("--annotations=none.json", "--images={tmp}", "--name=a_train", "--out={tmp}"),
        "none.json: no such file",
    ),
    "data.download": (("lvis_v1", "--images=/none", "--out={tmp}"), "--images /none: no folder /none/train2017"),
    "data.browse": (("none.json", "--images={tmp}", "--out={tmp}/page.html"), "none.json: no such file"),
    "data.shapes": (("--out={tmp}/../..",), "the folder is not empty"),
    "data.stats": (("none.json",), "none.json: no such file"),
    "interop.import_mmdet_config": (("none.py", "--out={tmp}/x.py"), "none.py: no such file"),
    "interop.import_torch": (
        ("none.npz", "--config=configs/glyphs_ce.py", "--out={tmp}/run"),
        "none.npz: no such file",
    ),
    "interop.export_torch": (("--workdir=/none", "--out={tmp}/x.npz"), "/none: no run there"),
    "interop.golden": (("none.npz",), "none.npz"),
    "training.replay": (("none.npz",), "none.npz"),
    "experiments.boundaries": (("--out={tmp}", "--alpha=-1"), "--alpha -1"),
    "experiments.glyphs_lvis": (("--out=/dev/null/x",), "/dev/null/x"),
    "experiments.mnist": (("--seeds=0",), "--seeds 0: at least 1"),
    "experiments.weight_norms": (("--workdir=/none", "--out={tmp}"), "/none"),
    "experiments.table": (("2", "--seeds=0"), "--seeds 0: at least 1"),
}


def test_the_commands_listed_here_are_all_there_are():
    files = [p for p in (ROOT / "c2am_jax").rglob("*.py") if 'if __name__ == "__main__"' in p.read_text()]
    names = {".".join(p.relative_to(ROOT / "c2am_jax").with_suffix("").parts) for p in files}
    assert names - {"train", "eval"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_wrong_input_with_one_line_and_status_2(name, tmp_path, capsys):
    arguments, named = COMMANDS[name]
    main = importlib.import_module(f"c2am_jax.{name}").main
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and named in lines[0]


# What each command writes, and arguments that would be refused later: the place is looked at before any of the work.
FILES = {
    "export": ("--workdir=/none",),
    "interop.export_torch": ("--workdir=/none",),
    "interop.import_mmdet_config": ("none.py",),
    "data.browse": ("none.json", "--images=."),
}
FOLDERS = {
    "predict": ("none.jpg", "--workdir=/none"),
    "interop.import_torch": ("none.npz", "--config=glyphs_ce"),
    "data.stats": ("gt.json",),
    "data.prepare": ("--annotations=none.json", "--images=.", "--name=x"),
    "data.shapes": (),
    "experiments.boundaries": (),
    "experiments.glyphs_lvis": ("--data=data",),
    "experiments.mnist": ("--data=mnist", "--mnist=none"),
    "experiments.table": ("2",),
    "experiments.weight_norms": ("--workdir=/none",),
}


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_place_that_cannot_be_written_is_told_before_the_work(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("not a folder")
    Path("folder").mkdir()
    suffix = ".html" if name == "data.browse" else ""
    kind = "file" if name in FILES else "folder"
    places = {f"file/below{suffix}": f"file is a file, not a folder; name another {kind}"}
    if name in FILES and name != "interop.import_mmdet_config":  # which writes over nothing
        places["folder"] = "this is a folder; name a file"
    if name in FOLDERS:
        places["file"] = "this is a file; name a folder"
    main = importlib.import_module(f"c2am_jax.{name}").main
    for place, told in places.items():
        assert main([*(FILES | FOLDERS)[name], f"--out={place}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --out {place}: ") and line.endswith(told)

    def read_only(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert main([*(FILES | FOLDERS)[name], f"--out=new/{name}{suffix}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: --out new/{name}{suffix}: this {kind} can't be written (Read-only file system): free space or "
        f"permissions there, or name another {kind}"
    )
    assert not Path("new").exists()


def test_data_is_looked_up_before_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    Path(tmp_path, "file").write_text("not a folder")
    data = DataSettings(dir=f"{tmp_path}/file")
    with pytest.raises(MissingDataset):
        open_dataset(data, "val")
    with pytest.raises(StorageError, match=r"--config.data.dir .*/file: this is a file; name a folder"):
        open_dataset(dataclasses.replace(data, name="glyphs"), "val")
    experiment = load_experiment("glyphs_c2am").changed({"data.dir": data.dir})
    with pytest.raises(StorageError, match="--config.data.dir"):
        check_files(experiment)


def test_statistics_of_a_file_are_printed_without_a_place_for_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = {"id": 1, "height": 9, "width": 9, "file_name": "a"}
    box = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 5, 5],
        "area": 25,
        "segmentation": [[0, 0, 5, 0, 5, 5]],
    }
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a", "frequency": "f"}]}
    Path("gt.json").write_text(json.dumps(truth))
    assert importlib.import_module("c2am_jax.data.stats").main(["gt.json"]) == 0
    assert "gt.json" in capsys.readouterr().out and [path.name for path in tmp_path.iterdir()] == ["gt.json"]


def test_scoring_a_file_needs_no_model_and_writes_the_metrics(tmp_path, scoring_files):
    scoring_files(tmp_path)
    files = [f"--annotations={tmp_path}/gt.json", f"--predictions={tmp_path}/dt.json", f"--output={tmp_path}/m.json"]
    status, _, output = command("-X", "importtime", "eval.py", *files, "--iou_type=bbox")
    assert status == 0 and "100.0" in output
    assert "tensorflow" not in output and " jax" not in output
    assert json.loads((tmp_path / "m.json").read_text())["bbox/AP"] == pytest.approx(1.0)


LOGS = """
import logging, sys
from c2am_jax import command_line

def main(_):
    log = logging.getLogger("c2am_jax.training.loop")
    log.info("preparing %s", "glyphs_train")
    log.warning("1 x image left out")
    log.error("a checkpoint could not be saved")
    logging.getLogger("orbax").warning("a step of another library")

command_line.run(main, "")
"""


def test_log_lines_are_plain():
    done = subprocess.run([sys.executable, "-c", LOGS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines() == [
        "preparing glyphs_train",
        "warning: 1 x image left out",
        "error: a checkpoint could not be saved",
    ]


TENSORFLOW = """
import os
import jax
before = os.environ["TF_CPP_MIN_LOG_LEVEL"]
from c2am_jax.data.tensorflow_host import tf
assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == before
pixels = tf.zeros((4, 4, 3), tf.uint8)

@tf.function
def turned(x):
    return tf.transpose(x, (1, 0, 2))

assert turned(pixels).shape == (4, 4, 3)
tf.io.decode_jpeg(b"no picture")
"""


@pytest.mark.parametrize("level", [None, "0"])
def test_tensorflow_is_quiet_but_for_its_errors(level):
    """Bytes that are turned made oneDNN log an error; with level "0" the C++ code may say all that it has to say."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")} | {"JAX_PLATFORMS": "cpu"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    done = subprocess.run(
        [sys.executable, "-c", TENSORFLOW], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "oneDNN" not in done.stderr and "InvalidArgumentError" in done.stderr.splitlines()[-1]
    assert done.stderr.startswith("Traceback") == (level is None)
