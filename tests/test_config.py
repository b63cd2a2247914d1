"""The experiment tree: overrides arrive, and what it does not know is named."""

import json
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from c2am_jax import config_files
from c2am_jax.config import glyphs, load_experiment, lvis, method, parse
from c2am_jax.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture
def parsed(monkeypatch):
    """(file, overrides) -> the config as train.py sees it."""

    def parse(file, *overrides):
        arguments = ["train.py", f"--config={CONFIGS / file}", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)  # where config_flags looks for overrides
        values = flags.FlagValues()
        config = config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
        values(arguments)
        return config.value

    return parse


# Without `own_data`, which needs data: tests/data/test_derived.py.
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.py") if path.stem != "own_data")


@pytest.mark.parametrize("file", FILES)
def test_every_config_file_makes_an_experiment(parsed, file):
    config = parsed(file)
    assert parse(config).as_dict() == config.to_dict()
    assert config.name.endswith(Path(file).stem) or Path(file).stem in config.name
    if file.startswith("methods"):
        assert parsed(f"{file}:glyphs").data.name == "glyphs" and parsed(f"{file}:v05").model.num_classes == 1230
        if not config.train.trainable:  # a second stage has the sampler of its method
            assert parsed(f"{file}:uniform").data.sampler == "repeat_factor"


def test_what_own_data_leaves_open_is_set_by_flags(parsed):
    config = parsed(
        "own_data.py:softmax",
        "--config.data.folder=somewhere",
        "--config.model.num_classes=3",
        "--config.data.buckets=((192,256),(256,192))",
        "--config.train.batch_size=2",
        "--config.name=mine",
    )
    assert config.loss.name == "softmax" and config.model.num_classes == 3 and config.train.batch_size == 2
    assert config.data.buckets == ((192, 256), (256, 192)) and config.name == "mine" and config.data.canvas is None


def test_any_value_can_be_overridden(parsed):
    config = parsed(
        "maskrcnn_r50_c2am.py",
        "--config.loss.alpha=0.3",
        "--config.model.backbone.norm=group_norm",
        "--config.data.buckets=((192,256),(256,192))",
        "--config.data.short_sides=(160,192)",
        "--config.data.test_short_side=192",
        "--config.train.lr_drops=(0.7,0.9)",
        "--config.train.trainable=('*.fc_cls.*','rpn_head.*')",
    )
    experiment = parse(config)
    assert experiment.loss.parameters["alpha"] == 0.3
    assert experiment.model.backbone.norm == "group_norm"
    assert experiment.data.buckets == ((192, 256), (256, 192))
    assert experiment.train.lr_drops == (0.7, 0.9)
    assert experiment.train.trainable == ("*.fc_cls.*", "rpn_head.*")


def test_the_argument_behind_the_colon_chooses_the_version(parsed):
    config = parsed("maskrcnn_r50_ce.py:v05")
    assert (config.model.num_classes, config.data.name, config.name) == (1230, "lvis_v05", "maskrcnn_r50_ce_v05")


@pytest.mark.parametrize(("key", "near"), [("loss.alhpa", "alpha"), ("trian.steps", "train"), ("train.stesp", "steps")])
def test_an_unknown_key_names_its_neighbour(parsed, key, near):
    with pytest.raises((AttributeError, KeyError), match=f'Did you mean \\\\*"{near}'):
        parsed("glyphs_c2am.py", f"--config.{key}=1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nosuch.file:loss", "cannot import 'nosuch.file' .*No module named 'nosuch'.*; give MODULE:FUNCTION, such as"),
        ("my/file.py:loss", "cannot import 'my/file.py'.*; give MODULE:FUNCTION, such as"),
        (":loss", "cannot import ''.*; give MODULE:FUNCTION, such as"),
        ("c2am_jax.errors:loss", "no function 'loss' in c2am_jax.errors; give MODULE:FUNCTION, such as"),
        ("c2am_jax.errors", "unknown loss 'c2am_jax.errors'; choose one of .*or your own: MODULE:FUNCTION, such as"),
    ],
)
def test_a_loss_of_ones_own_that_is_not_there_is_one_line(name, says, tmp_path):
    config = glyphs("x", "softmax")
    config.loss.name = name
    with pytest.raises(UserError, match=says):
        parse(config)
    (tmp_path / "mine.py").write_text(
        f"from c2am_jax.config import method\ndef get_config(): return method({name!r}, name='x')"
    )
    with pytest.raises(UserError, match=says):
        load_experiment(str(tmp_path / "mine.py"))


def test_experiments_share_every_default_they_do_not_name():
    ours, theirs = lvis("a", "softmax"), lvis("b", "c2am", depth=101)
    assert ours.train == theirs.train and ours.data == theirs.data
    assert (ours.data.max_side, ours.data.test_short_side) == (1333, 800)
    assert tuple(ours.data.short_sides) == (640, 672, 704, 736, 768, 800)
    assert (ours.model.test.score_threshold, ours.model.test.max_detections) == (1e-4, 300)


def test_presets_of_a_method(parsed):
    published, uniform = parsed("methods/gol.py"), parsed("methods/gol.py:v05+uniform")
    assert (published.model.mask_head.predictor, published.model.test.nms_iou) == ("normed", 0.3)
    assert published.loss.tail_frequency == 1.1e-3 and uniform.loss.tail_frequency == 1.77e-3
    assert (uniform.model.mask_head.predictor, uniform.model.test.nms_iou) == ("plain", 0.5)
    assert (uniform.name, uniform.model.num_classes) == ("maskrcnn_r50_gol_uniform_v05", 1230)
    assert parsed("methods/gol.py:as_published") == published


def test_the_uniform_preset_leaves_only_the_method_to_differ():
    one, other = (method(name, "uniform").to_dict() for name in ("eql", "seesaw"))
    one.pop("loss"), other.pop("loss"), one.pop("name"), other.pop("name")
    assert one == other and one["train"]["epochs"] == 24 and len(one["data"]["short_sides"]) > 1


@pytest.mark.parametrize("argument", ["v2", "glyphs+uniform", "v1+v05", "uniform+as_published"])
def test_an_unknown_preset_lists_the_choices(argument):
    with pytest.raises(UserError, match="v1 or v05, as_published or uniform"):
        method("eql", argument)


def test_the_config_json_of_a_run_is_a_config_too(tmp_path, parsed):
    file = tmp_path / "config.json"
    kept = load_experiment("glyphs_c2am").changed({"train.steps": 7})
    tree = kept.as_json()
    tree["loss"]["features"] = 1024  # of an older version
    file.write_text(json.dumps(tree))
    assert load_experiment(str(file)) == kept
    assert parse(parsed(config_files.find(str(file)), "--config.data.test_short_side=96")).data.test_short_side == 96
    with pytest.raises(AttributeError, match="test_shrot_side"):
        parsed(config_files.find(str(file)), "--config.data.test_shrot_side=96")
    for content, says in (("[]", "not the config.json of a run"), ("{", "not JSON"), ('{"loss": {}}', "config.json: ")):
        file.write_text(content)
        with pytest.raises(UserError, match=says):
            load_experiment(str(file))
