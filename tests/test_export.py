"""python -m c2am_jax.export: a file that runs without the package, and finds what the package finds."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import CATEGORIES

from c2am_jax.data.sampler import target_size
from c2am_jax.data.settings import DataSettings
from c2am_jax.evaluation.detect import PictureDetector
from c2am_jax.export import main
from c2am_jax.mesh import data_mesh
from c2am_jax.training.exported import ExportShape, export_detector, export_shape
from c2am_jax.training.restore import load_detector

BARE = """
import sys
class Absent:  # an environment without this package, also where it is installed in place
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("c2am_jax", "flax"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import jax
import numpy as np
from jax import export
folder = sys.argv[1]
given = np.load(folder + "/in.npz")
with open(folder + "/detector.bin", "rb") as file:
    found = export.deserialize(bytearray(file.read())).call(given["images"], given["sizes"])
assert not {"c2am_jax", "flax"} & set(sys.modules)
np.savez(folder + "/out.npz", **{name: np.asarray(value) for name, value in found.items()})
"""
SIZES = [(64, 64), (40, 60)]


def test_a_file_for_all_platforms_runs_without_this_package_and_finds_the_same(workdir, tmp_path, monkeypatch):
    out = tmp_path / "detector.bin"
    assert (
        main([f"--workdir={workdir}", f"--out={out}", "--batch=2", "--size", "64", "64", "--platforms=cpu,cuda,tpu"])
        == 0
    )
    pictures = [np.random.default_rng(i).integers(0, 256, (*hw, 3), np.uint8) for i, hw in enumerate(SIZES)]
    images = np.full((2, 64, 64, 3), 255, np.uint8)  # what lies beyond an image must not count
    for image, picture in zip(images, pictures, strict=True):
        image[: picture.shape[0], : picture.shape[1]] = picture
    np.savez(tmp_path / "in.npz", images=images, sizes=np.array(SIZES, np.int32))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    command = [sys.executable, "-I", "-c", BARE, str(tmp_path)]  # -I: neither this folder nor PYTHONPATH is searched
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    bare = np.load(tmp_path / "out.npz")

    trained = load_detector(workdir)
    detect = PictureDetector(trained.experiment, trained.detector, data_mesh(jax.devices()[:1]), batch_size=2)
    own = dict(detect(enumerate(pictures)))
    for row in range(2):
        keep = bare["valid"][row]
        assert keep.sum() == len(own[row].scores) > 0
        np.testing.assert_allclose(
            bare["scores"][row][keep], own[row].scores, atol=1e-4
        )  # another program rounds otherwise
        np.testing.assert_allclose(bare["boxes"][row][keep], own[row].boxes, atol=1e-2)
        assert (bare["labels"][row][keep] == own[row].labels).all()
        assert not bare["boxes"][row][~keep].any() and bare["masks"][row].shape == (10, 28, 28)

    described = json.loads((tmp_path / "detector.bin.json").read_text())
    assert described["platforms"] == ["cpu", "cuda", "tpu"]
    assert [entry["name"] for entry in described["classes"]] == list(CATEGORIES.names)
    assert described["inputs"]["images"]["shape"] == [2, 64, 64, 3]
    for name, value in bare.items():
        assert described["outputs"][name]["shape"] == list(value.shape)
        assert described["outputs"][name]["dtype"] == str(value.dtype)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_file_for_an_accelerator_alone_is_written_on_a_cpu(workdir, platform):
    shape = ExportShape(1, (64, 64), (64, 64), 64, 64)
    content, described = export_detector(load_detector(workdir), shape, platforms=(platform,), threshold=0.0)
    assert described["platforms"] == [platform]
    with pytest.raises(ValueError, match="(?i)platform"):
        jax.export.deserialize(bytearray(content)).call(jnp.zeros((1, 64, 64, 3), jnp.uint8), jnp.array([[64, 64]]))


@pytest.mark.parametrize(("short", "most", "bucket"), [(800, 1333, (1344, 1344)), (128, 128, (128, 128))])
def test_sizes_in_the_network_are_those_of_evaluation(short, most, bucket):
    sizes = np.random.default_rng(0).integers(1, 2000, (5000, 2)).astype(np.int32)
    found = ExportShape(1, (2000, 2000), bucket, short, most).target_hw(jnp.asarray(sizes))
    expected = np.maximum(target_size(sizes, short, most), 1)
    assert (np.abs(found - expected) <= 1).all() and (found != expected).mean() < 1e-3  # halves that floats round down


def test_images_that_do_not_fit_become_smaller():
    shape = export_shape(DataSettings(), (480, 640), 1)
    assert shape.bucket == (800, 1088)
    assert shape.target_hw(jnp.array([[480, 640], [640, 480], [480, 480]])).tolist() == [[800, 1067], [800, 600]] + [
        [800, 800]
    ]


def test_wrong_input_is_one_line(workdir, tmp_path, capsys):
    good = [f"--workdir={workdir}", f"--out={tmp_path / 'x'}"]
    for arguments, words in [
        ([f"--workdir={tmp_path / 'gone'}", good[1]], "no run there"),
        ([*good, "--platforms=gpu"], "there are cpu, cuda"),
        ([*good, "--threshold=7"], "between 0 and 1"),
        ([*good, "--batch=0"], "at least 1"),
        ([*good, "--step=3"], "there are: 7"),
    ]:
        assert main(arguments) == 2, arguments
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and words in errors[0], (arguments, errors)
    assert not (tmp_path / "x").exists()
