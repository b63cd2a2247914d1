"""python -m c2am_jax.export: a file that runs without the package, and finds what the package finds."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from PIL import Image
from untrained import CATEGORIES

from c2am_jax.config import load_experiment
from c2am_jax.data import glyphs
from c2am_jax.data.lvis import category_table
from c2am_jax.data.sampler import target_size
from c2am_jax.data.settings import DataSettings
from c2am_jax.evaluation.detect import PictureDetector
from c2am_jax.export import main
from c2am_jax.interop.golden import filled
from c2am_jax.interop.recording import Recording
from c2am_jax.mesh import data_mesh
from c2am_jax.ops.platforms import traced_for
from c2am_jax.training.exported import ExportShape, export_detector, export_shape, predict_function
from c2am_jax.training.restore import TrainedDetector, load_detector

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
GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture
def onnxruntime():
    """Of ONNX: the module, where what writes files is there too."""
    pytest.importorskip("onnx", reason='needs the extra "onnx"')
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")


def run_onnx(onnxruntime, content, images, sizes):
    """What an ONNX file (its name or its bytes) finds."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images, "sizes": sizes}), strict=True))


def same_detections(found, expected):
    """Labels equal, boxes within 0.01 px."""
    assert found.keys() == expected.keys() and expected["valid"].any(1).all()
    for name in ("valid", "labels"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name, tolerance in (("boxes", 1e-2), ("scores", 1e-4), ("masks", 1e-3)):
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance, rtol=0)


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


def test_images_need_no_size_of_whole_strides(workdir):
    """They are resized into a padded shape of the config, as predict does; --size says what comes in."""
    trained = load_detector(workdir)
    picture = np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)
    shape = export_shape(trained.experiment.data, (70, 50), 1)
    assert shape.image_hw == (70, 50) and not any(side % 32 for side in shape.bucket)
    with traced_for("cpu"):
        program = jax.make_jaxpr(predict_function(trained, shape, 0.0))(picture[None], np.array([[70, 50]], np.int32))
    boxes, labels, _, scores, valid = jax.jit(jaxpr_as_fun(program))(picture[None], np.array([[70, 50]], np.int32))
    detect = PictureDetector(trained.experiment, trained.detector, data_mesh(jax.devices()[:1]))
    ((_, own),) = detect([(0, picture)])
    keep = np.asarray(valid[0])
    assert keep.sum() == len(own.scores) > 0
    np.testing.assert_allclose(np.asarray(scores[0])[keep], own.scores, atol=1e-4)
    np.testing.assert_allclose(np.asarray(boxes[0])[keep], own.boxes, atol=1e-2)
    np.testing.assert_array_equal(np.asarray(labels[0])[keep], own.labels)


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


def test_onnxruntime_finds_what_the_package_finds(onnxruntime, workdir, tmp_path):
    glyphs.generate(
        tmp_path / "glyphs", glyphs.GlyphSettings(train_images=2, val_images=2, val_per_category=1, head=1, least=1)
    )
    files = sorted((tmp_path / "glyphs" / "images" / "val").glob("*.jpg"))[:2]
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((64, 64))) for file in files])
    out, sizes = tmp_path / "detector.onnx", np.array(SIZES, np.int32)
    arguments = [f"--workdir={workdir}", f"--out={out}", "--format=onnx", "--batch=2", "--size", "64", "64"]
    assert main(arguments) == 0
    found = run_onnx(onnxruntime, out, images, sizes)
    trained = load_detector(workdir)
    function = predict_function(trained, export_shape(trained.experiment.data, (64, 64), 2), 0.0)
    with traced_for("cpu"):  # one way of each operation compiles in half the time
        program = jax.make_jaxpr(function)(images, sizes)
    expected = map(np.asarray, jax.jit(jaxpr_as_fun(program))(images, sizes))
    same_detections(found, dict(zip(sorted(found), expected, strict=True)))

    described = json.loads((tmp_path / "detector.onnx.json").read_text())
    assert (described["format"], described["opset"]) == ("onnx", 18)
    for name, value in found.items():
        assert described["outputs"][name]["shape"] == list(value.shape)
        assert described["outputs"][name]["dtype"] == str(value.dtype)


@pytest.mark.slow  # two minutes on two CPU cores
def test_onnxruntime_finds_what_a_resnet_50_finds(onnxruntime):
    """1203 classes, and weights that tell them apart (those of the golden recording).

    Of image_1: in image_0 one of 300 detections hangs on rounding. Weights that differ by 1e-6 change it in JAX too.
    """
    from c2am_jax.training.exported_onnx import export_onnx

    recording = Recording(GOLDEN / "mask_rcnn_r50_c2am.npz")
    table = category_table([{"id": k + 1, "name": f"class {k}"} for k in range(recording.meta["num_classes"])])
    trained = TrainedDetector(load_experiment("maskrcnn_r50_c2am"), filled(recording)[0].value, table, 0)
    image, shape = recording["image_1"][None], ExportShape(1, (256, 320), (256, 320), 256, 320)
    content, _ = export_onnx(trained, shape, threshold=0.0)
    sizes = np.array([[256, 320]], np.int32)
    expected = jax.tree.map(np.asarray, jax.jit(predict_function(trained, shape, 0.0))(image, sizes))
    assert expected["valid"].sum() == 300 and len(np.unique(expected["labels"])) > 10
    same_detections(run_onnx(onnxruntime, content, image, sizes), expected)


def test_onnx_without_its_package_and_with_platforms_is_one_line(workdir, tmp_path, capsys, monkeypatch):
    arguments = [f"--workdir={workdir}", f"--out={tmp_path / 'x'}", "--format=onnx"]
    assert main([*arguments, "--platforms=cpu"]) == 2
    assert "error: --platforms is for --format stablehlo" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(arguments) == 2
    assert 'pip install "c2am_jax[onnx]"' in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_wrong_input_is_one_line(workdir, tmp_path, capsys):
    good = [f"--workdir={workdir}", f"--out={tmp_path / 'x'}"]
    for arguments, words in [
        ([f"--workdir={tmp_path / 'gone'}", good[1]], "no run there"),
        ([*good, "--platforms=gpu"], "there are cpu, cuda"),
        ([*good, "--threshold=7"], "between 0 and 1"),
        ([*good, "--batch=0"], "at least 1"),
        ([*good, "--step=3"], "there are: 7"),
        ([*good, "--step=last"], "--step last: must be a whole number (a checkpoint's step), or best"),
    ]:
        assert main(arguments) == 2, arguments
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and words in errors[0], (arguments, errors)
    assert not (tmp_path / "x").exists()
