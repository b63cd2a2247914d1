"""Box regression with a class-agnostic branch: (W_0 + W_c) / 2, its gradients, and the same boxes in other programs."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))
from tiny import tiny_config

from c2am_jax.interop.export_torch import main as export_main
from c2am_jax.interop.export_torch import write_weights
from c2am_jax.interop.import_torch import import_weights
from c2am_jax.models.architecture import BoxHeadSettings, cascade_mask_rcnn
from c2am_jax.models.box_head import BoxRegressor
from c2am_jax.training.initial import load, weights_of_workdir
from c2am_jax.training.state import build_detector
from c2am_jax.weights import regression
from c2am_jax.weights.foreign import read_weights

CLASSES, WIDTH = 5, 7
EACH = {"model__box_head__class_agnostic": False}
MIXED = EACH | {"model__box_head__class_agnostic_branch": True}
REG = "roi_head.bbox_head.fc_reg."


def regressor(seed=0):
    found = BoxRegressor(WIDTH, CLASSES, branch=True, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    for part in (found, found.shared):
        part.kernel[...] = jnp.asarray(rng.normal(size=part.kernel.shape), jnp.float32)
        part.bias[...] = jnp.asarray(rng.normal(size=part.bias.shape), jnp.float32)
    return found


def test_weights_are_half_shared_and_half_of_the_class():
    found, rng = regressor(), np.random.default_rng(1)
    x, labels = rng.normal(size=(6, WIDTH)).astype(np.float32), rng.integers(0, CLASSES, 6)
    own, shared = (np.asarray(part.kernel[...], np.float64) for part in (found, found.shared))
    bias = (np.asarray(found.bias[...]) + np.asarray(found.shared.bias[...])) / 2
    expected = np.einsum("nd,kcd->nkc", x, 0.5 * shared + 0.5 * own) + bias
    np.testing.assert_allclose(found(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)
    of_class = found.of_class(jnp.asarray(x), jnp.asarray(labels))
    np.testing.assert_allclose(of_class, expected[np.arange(6), labels], rtol=1e-4, atol=1e-5)


def test_the_branch_learns_from_all_classes_and_a_class_from_its_own():
    graph, arrays = nnx.split(regressor())
    x, labels = jnp.asarray(np.random.default_rng(2).normal(size=(3, WIDTH)), jnp.float32), jnp.asarray([0, 0, 3])
    gradient = jax.grad(lambda a: nnx.merge(graph, a).of_class(x, labels).sum())(arrays)
    rows = 0.5 * np.stack([x[0] + x[1], x[2]])
    np.testing.assert_allclose(gradient["kernel"][...][jnp.asarray([0, 3]), 0], rows, rtol=1e-5)
    assert not np.asarray(gradient["kernel"][...][jnp.asarray([1, 2, 4])]).any()
    np.testing.assert_allclose(gradient["shared"]["kernel"][...][0, 0], rows.sum(0), rtol=1e-5)


def test_without_the_branch_a_detector_has_the_arrays_that_it_always_had():
    plain, mixed = (build_detector(tiny_config(**changes))[0].arrays for changes in (EACH, MIXED))
    assert set(mixed) - set(plain) == {f"{REG}shared.kernel", f"{REG}shared.bias"} and set(plain) < set(mixed)
    np.testing.assert_array_equal(plain[f"{REG}kernel"], mixed[f"{REG}kernel"])


def deltas(arrays, x):
    """What box regression computes with arrays of a detector, [N, K, 4]."""
    found = np.einsum("nd,kcd->nkc", x, arrays[f"{REG}kernel"]) + arrays[f"{REG}bias"]
    if f"{REG}shared.kernel" not in arrays:
        return found
    shared = np.einsum("nd,kcd->nkc", x, arrays[f"{REG}shared.kernel"]) + arrays[f"{REG}shared.bias"]
    return (found + shared) / 2


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    """A workdir of a detector with the branch, all its arrays random, and these."""
    folder = tmp_path_factory.mktemp("mixed")
    detector, _ = build_detector(tiny_config(**MIXED))
    rng = np.random.default_rng(3)
    random = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in detector.arrays.items()}
    write_weights(folder / "plain.safetensors", random)
    fitted = import_weights(folder / "plain.safetensors", tiny_config(**MIXED), folder / "run")
    assert not fitted.missing and not fitted.unexpected
    return folder, random


def test_files_and_detectors_without_the_branch_give_the_same_boxes(mixed_run, tmp_path, capsys):
    folder, random = mixed_run
    x = np.random.default_rng(4).normal(size=(4, 16)).astype(np.float32)
    expected = deltas(random, x)
    kept, _ = weights_of_workdir(folder / "run")  # plain weights, parted again
    np.testing.assert_allclose(deltas(kept, x), expected, atol=2e-4)
    np.testing.assert_allclose(kept[f"{REG}kernel"].mean(0), kept[f"{REG}shared.kernel"][0], atol=1e-5)

    out = tmp_path / "out.safetensors"
    assert export_main(["--workdir", str(folder / "run"), "--out", str(out)]) == 0
    assert "the class-agnostic branch is merged into the weights of each class" in capsys.readouterr().out
    written = read_weights(out).arrays
    assert f"{REG}shared.weight" not in written and written[f"{REG}weight"].shape == (400, 16)

    for source in (str(folder / "run"), str(out)):  # a first stage with the branch, and its file
        plain = load(source, build_detector(tiny_config(**EACH))[0]).detector.arrays
        np.testing.assert_allclose(deltas({n: np.asarray(v) for n, v in plain.items()}, x), expected, atol=2e-4)
    same = load(str(folder / "run"), build_detector(tiny_config(**MIXED))[0]).detector.arrays
    np.testing.assert_array_equal(same[f"{REG}shared.kernel"], kept[f"{REG}shared.kernel"])
    settings = json.loads((folder / "run" / "config.json").read_text())["model"]["box_head"]
    assert settings["class_agnostic_branch"] is True


def test_other_arrays_are_left_alone():
    arrays = {"roi_head.bbox_head.0.fc_reg.weight": np.ones((4, 3)), "neck.weight": np.ones(2)}
    for found in (regression.plain(arrays), regression.like(arrays, set(arrays))):
        assert found.keys() == arrays.keys() and all(found[name] is arrays[name] for name in arrays)


def test_the_branch_stands_beside_weights_of_each_class():
    with pytest.raises(ValueError, match="class_agnostic_branch=True: must be False where class_agnostic=True"):
        BoxHeadSettings(class_agnostic=True, class_agnostic_branch=True)
    with pytest.raises(ValueError, match="must be True where cascade has stages"):
        cascade_mask_rcnn(box_head=BoxHeadSettings(class_agnostic_branch=True))
