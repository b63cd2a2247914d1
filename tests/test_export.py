"""The exported program gives the package's own detections where the package is not."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.evaluation.predict import make_predict
from c2am_jax.export import main, target_size
from c2am_jax.predict import Detector
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.restore import categories_of, first_state, restore
from c2am_jax.training.step import data_mesh

# -I: neither the current folder nor PYTHONPATH is looked at
PROGRAM = """
import importlib.util, sys
import jax
import jax.export
import numpy as np
assert importlib.util.find_spec("c2am_jax") is None
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
given = np.load(sys.argv[2])
np.savez(sys.argv[3], **program.call(given["image"], given["hw"]))
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, compile_quickly):
    folder, config = tmp_path_factory.mktemp("run"), tiny_config()
    _, state = first_state(config, data_mesh(jax.devices()[:1]))
    check_config(folder, config)
    (folder / "categories.json").write_text(json.dumps([{"id": k, "name": str(k)} for k in range(1, 101)]))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(dataclasses.replace(state, step=state.step + 3), 3)
    return folder


@pytest.fixture(scope="module")
def exported(workdir):
    file = workdir / "detector.stablehlo"
    assert main(["--workdir", str(workdir), "--out", str(file), "--batch", "2"]) == 0
    return file


def test_a_process_without_the_package_finds_the_same(workdir, exported, tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((64, 48), (100, 128))]
    canvas = np.zeros((2, 128, 128, 3), np.uint8)
    for row, image in enumerate(images):
        canvas[row, : image.shape[0], : image.shape[1]] = image
    hw = np.array([image.shape[:2] for image in images], np.int32)
    np.savez(tmp_path / "in.npz", image=canvas, hw=hw)
    files = [str(exported), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, *files], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "out.npz")

    run = restore(workdir)
    batch, bucket = Detector(run, categories_of(workdir), batch_size=2, threshold=0)._batch(images)
    config = run.config
    predict = make_predict(run.functional, data_mesh(jax.devices()[:1]), mean=config.data.mean, std=config.data.std)
    state = jax.device_get(run.state)
    wanted = jax.tree.map(np.asarray, predict(state.params, state.rest, batch, bucket))
    assert wanted.valid.sum() == found["valid"].sum() == 20
    np.testing.assert_array_equal(found["labels"], wanted.labels)
    np.testing.assert_allclose(found["scores"], wanted.scores, rtol=1e-4)
    np.testing.assert_allclose(found["masks"], wanted.masks, atol=1e-3)
    ratio = np.tile((hw / batch.target_hw)[:, ::-1], 2)[:, None]
    np.testing.assert_allclose(found["boxes"], wanted.boxes * ratio, atol=0.02)


def test_the_description_tells_what_goes_in_and_out(exported):
    description = json.loads(exported.with_suffix(".json").read_text())
    assert description["inputs"]["image"] == {"shape": [2, 128, 128, 3], "dtype": "uint8"}
    assert description["outputs"]["boxes"] == {"shape": [2, 10, 4], "dtype": "float32"}
    assert set(description["outputs"]) == {"boxes", "scores", "labels", "masks", "valid"}
    assert description["categories"][4] == {"id": 5, "name": "5"} and description["step"] == 3
    program = jax.export.deserialize(exported.read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")


def test_each_platform_runs_its_own_kernels(exported):
    """RoIAlign and NMS differ: loops on a CPU, matrix products elsewhere; the program holds both, and chooses."""
    text = jax.export.deserialize(exported.read_bytes()).mlir_module()
    assert "_platform_index" in text and text.count("stablehlo.case") >= 3


def test_sizes_follow_the_rule_of_the_data_and_the_room_there_is():
    hw = np.array([[480, 640], [640, 480], [100, 1000]], np.int32)
    sizes = target_size(hw, (800, 1344), short_side=800, max_side=1333)
    assert sizes.tolist() == [[800, 1067], [800, 600], [133, 1333]]


def test_wrong_input_is_one_line(workdir, tmp_path, capsys):
    for arguments, named in [
        (["--workdir", str(tmp_path)], "no run there"),
        (["--workdir", str(workdir), "--step", "9"], "no checkpoint of step 9"),
        (["--workdir", str(workdir), "--size", "50", "64"], "multiples of 32"),
    ]:
        assert main([*arguments, "--out", str(tmp_path / "x.stablehlo")]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
