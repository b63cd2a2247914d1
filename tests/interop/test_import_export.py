"""Weights in and out of workdirs: every architecture, every kind of file, and what is refused."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))
from tiny import tiny_config

from c2am_jax.config import glyphs, load_experiment, lvis, parse
from c2am_jax.errors import UserError
from c2am_jax.interop import import_torch
from c2am_jax.interop.export_torch import export_weights, write_weights
from c2am_jax.interop.export_torch import main as export_main
from c2am_jax.interop.import_torch import import_weights
from c2am_jax.training.initial import load, weights_of_workdir
from c2am_jax.training.state import build_detector
from c2am_jax.weights.foreign import fit, read_weights, to_reference_names
from c2am_jax.weights.names import state_dict

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def arrays_of(config, seed=0):
    """Random values for every array of a detector, by our names."""
    detector, _ = build_detector(config)
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=v.shape).astype(np.float32) for n, v in detector.arrays.items()}


@pytest.fixture(scope="module")
def tiny():
    return arrays_of(tiny_config())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_a_detector_goes_out_and_comes_back_bit_for_bit(tiny, tmp_path, suffix):
    if suffix == ".pth":  # writing one needs torch
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    write_weights(tmp_path / f"one{suffix}", tiny)
    import_weights(tmp_path / f"one{suffix}", tiny_config(), tmp_path / "run")
    assert export_weights(tmp_path / "run", tmp_path / f"two{suffix}") == 0
    one, two = (read_weights(tmp_path / f"{name}{suffix}").arrays for name in ("one", "two"))
    assert set(one) == set(two) == set(state_dict(tiny))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value)
    found, step = weights_of_workdir(tmp_path / "run")
    assert step == 0
    for name, value in tiny.items():
        np.testing.assert_array_equal(found[name], value)
    report = json.loads((tmp_path / "run" / "import.json").read_text())
    assert len(report["matched"]) == len(tiny) and not report["missing"] and not report["unexpected"]
    with pytest.raises(UserError, match="run/best: no checkpoint yet"):
        export_weights(tmp_path / "run", tmp_path / "best.npz", "best")
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "run" / "best")
    (tmp_path / "run" / "checkpoints_checksums").rename(tmp_path / "run" / "best_checksums")
    assert export_weights(tmp_path / "run", tmp_path / f"best{suffix}", "best") == 0
    best = read_weights(tmp_path / f"best{suffix}").arrays
    assert set(best) == set(two)
    for name, value in best.items():
        np.testing.assert_array_equal(two[name], value)


@pytest.mark.parametrize(
    "config",
    [
        lambda: lvis("r101", "seesaw", depth=101),
        lambda: lvis("cascade", "c2am", depth=50, cascade=True),
        lambda: glyphs("glyphs", "eql"),
    ],
    ids=["r101 seesaw", "cascade r50 c2am", "glyphs with group norm, eql"],
)
def test_every_architecture_there_and_back(config):
    arrays = arrays_of(parse(config()))
    theirs = state_dict(arrays)
    assert len(theirs) == len(arrays)
    shapes = {name: value.shape for name, value in arrays.items()}
    found = fit(to_reference_names(theirs, source="x"), shapes, source="x")
    for name, value in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


def test_training_starts_from_the_imported_weights(tiny, tmp_path):
    write_weights(tmp_path / "w.safetensors", tiny)
    import_weights(tmp_path / "w.safetensors", tiny_config(), tmp_path / "run")
    detector, _ = build_detector(tiny_config())
    for source in (tmp_path / "run", tmp_path / "w.safetensors"):
        started = load(str(source), detector).detector
        for name, value in tiny.items():
            np.testing.assert_array_equal(started.arrays[name], value)


def test_a_detector_of_other_classes_starts_a_new_one_when_asked(tiny, tmp_path):
    write_weights(tmp_path / "coco.safetensors", tiny)
    config = tiny_config(model__num_classes=7)
    with pytest.raises(UserError, match="reset_classifier"):
        import_weights(tmp_path / "coco.safetensors", config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fitted = import_weights(tmp_path / "coco.safetensors", config, tmp_path / "run", reset_classifier=True)
    assert fitted.reset == ["roi_head.bbox_head.fc_cls.kernel"]  # regression and masks are class agnostic here


class Harmful:
    """What a pickle could do."""

    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_files_that_hold_something_else_are_refused_and_change_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("code.pth").write_bytes(pickle.dumps({"state_dict": Harmful()}, protocol=2))
    Path("text.pth").write_text("no weights")
    Path("number.pth").write_bytes(pickle.dumps(3, protocol=2))
    for name in ("code.pth", "text.pth", "number.pth"):
        with pytest.raises(UserError, match=name):
            import_weights(name, tiny_config(), "run")
    assert not Path("harmed").exists() and not Path("run").exists()


def test_a_truncated_file_is_refused_and_changes_nothing(tiny, tmp_path):
    for suffix in (".safetensors", ".npz"):
        file = tmp_path / f"w{suffix}"
        write_weights(file, tiny)
        file.write_bytes(file.read_bytes()[:-2000])
        with pytest.raises(UserError, match=f"w{suffix}"):
            import_weights(file, tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_holds_a_run_is_not_overwritten(tiny, tmp_path):
    write_weights(tmp_path / "w.npz", tiny)
    import_weights(tmp_path / "w.npz", tiny_config(), tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"):
        import_weights(tmp_path / "w.npz", tiny_config(), tmp_path / "run")


def test_the_commands_print_what_they_did_and_one_line_for_what_they_can_not(tiny, tmp_path, capsys, monkeypatch):
    write_weights(tmp_path / "w.npz", tiny)
    monkeypatch.setattr(import_torch, "load_experiment", lambda argument: tiny_config())
    arguments = [str(tmp_path / "w.npz"), "--config", "tiny.py", "--out", str(tmp_path / "run")]
    assert import_torch.main(arguments) == 0
    assert f"{len(tiny)} arrays matched, 0 are missing" in capsys.readouterr().out
    out = tmp_path / "out.safetensors"
    assert export_main(["--workdir", str(tmp_path / "run"), "--out", str(out)]) == 0 and out.is_file()
    assert "weights of step 0" in capsys.readouterr().out
    assert import_torch.main([str(tmp_path / "no.npz"), *arguments[1:-1], str(tmp_path / "other")]) == 2
    assert export_main(["--workdir", str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert export_main(["--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "out.txt")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "no such file" in errors[0] and "no run there" in errors[1] and ".pth" in errors[2]


def test_a_config_is_loaded_as_the_flag_of_training_names_it():
    assert load_experiment(f"{CONFIGS / 'maskrcnn_r50_ce.py'}:v05").model.num_classes == 1230
    assert load_experiment(str(CONFIGS / "glyphs_ce.py")).loss.name == "softmax"
    with pytest.raises(UserError, match=r"no config file .*none\.py"):
        load_experiment("none.py")
