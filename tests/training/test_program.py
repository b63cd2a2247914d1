"""What the compiled training step communicates, what a dry run tells, and the paper's detectors for TPUs."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.ahead.communication import collectives
from c2am_jax.ahead.hlo_text import parse
from c2am_jax.ahead.report import summary
from c2am_jax.config import load_experiment
from c2am_jax.errors import UserError
from c2am_jax.mesh import data_mesh
from c2am_jax.models.roi_head import MASK_CHUNK
from c2am_jax.training.program import describe, lower_predict, lower_step

HEAD = {"channels": 16, "width": 8, "convs": 1}  # of `config`: what comes in, what the convolutions have, how many


def mask_head(rois, *, channels, width, convs, pooled=14):
    """GFLOP of the head by its definition: 3x3 convolutions, a 2x2 transposed one, one product per pixel.

    Two numbers: a compiler may write the last, a matrix times a vector, as a sum of multiples, which are not counted.
    """
    inside = (3 * pooled - 2) ** 2  # pairs of output and input that a padded 3x3 convolution joins
    convolutions = sum(inside * i * width for i in [channels, *[width] * (convs - 1)])
    upsampled = convolutions + pooled**2 * 4 * width**2
    ways = upsampled + 4 * pooled**2 * width, upsampled
    return [pytest.approx(2 * rois * way / 1e9, abs=1e-6) for way in ways]


@pytest.fixture(scope="module")
def config():
    return tiny_config(train__batch_size=8, data__canvas=64, data__max_instances=4, model__backbone__norm="group_norm")


def test_the_step_on_eight_devices_only_sums_gradients_normalisers_and_metrics(config):
    lowered, parameters = lower_step(config, data_mesh(), (64, 64))
    found = collectives(parse(lowered.compile().as_text()))
    assert {c.kind for c in found} == {"all-reduce"}
    assert not any(c.in_loop for c in found)
    # A little less than the parameters is possible: gradients that are the same sum (the last biases of a residual
    # branch and of its shortcut) travel once. Normalisers and metrics add some scalars.
    assert sum(c.bytes for c in found) == pytest.approx(4 * parameters, rel=0.05)


def test_a_dry_run_tells_size_work_memory_and_collectives(config):
    found = describe(config, data_mesh(jax.devices()[:8])).numbers
    assert found["images_per_device"] == 1 and found["bucket"] == [64, 64]
    assert found["parameters"] > 1e5 and found["gflops_per_image"] > 0.01
    memory = found["memory_gib"]
    assert memory["total"] > 0 and np.isfinite(memory["total"]) and "fits" not in memory  # of a CPU nobody knows
    assert found["collectives"]["all-reduce"]["in_loop"] == 0
    assert found["gflops_per_image"] == pytest.approx(sum(found["gflops_per_image_by_part"].values()), rel=1e-3)
    by_part = found["gflops_per_image_by_part"]
    assert {"backbone", "backbone backward", "roi_align"} <= set(by_part)
    positives = round(config.model.box_head.samples * config.model.box_head.positive_fraction)
    assert by_part["mask_head"] in mask_head(positives, **HEAD)
    assert found["estimate"] is None and found["compile_seconds"] >= 0
    lines = summary(found).splitlines()
    assert lines[0].startswith("train on 8 x cpu, 1 image of 64x64 per device") and "estimates none" in "".join(lines)


def test_prediction_agrees_with_the_mask_head_counted_by_hand_its_loop_multiplied(config):
    """It runs over chunks of detections: three of them for two chunks and a rest."""
    more = config.changed({"model.test.max_detections": 2 * MASK_CHUNK + 6, "eval.batch_size": 1})
    found = describe(more, data_mesh(jax.devices()[:1]), "predict").numbers
    assert found["program"] == "predict" and found["images_per_device"] == 1 and found["collectives"] == {}
    by_part = found["gflops_per_image_by_part"]
    assert by_part["mask_head"] in mask_head(3 * MASK_CHUNK, **HEAD)


@pytest.mark.parametrize("program", [lower_step, lower_predict], ids=["train", "predict"])
def test_in_bfloat16_every_layer_computes_so_but_the_classes_do_not(config, program):
    def text(dtype):
        changes = {"train.batch_size": 1, "eval.batch_size": 1, "train.compute_dtype": dtype}
        return program(config.changed(changes), data_mesh(jax.devices()[:1]), (64, 64))[0].as_text()

    half = text("bfloat16")
    kinds = [re.search(r"\((.*)\) -> ", line)[1] for line in half.splitlines() if "stablehlo.convolution" in line]
    assert kinds and all(kind.count("xbf16>") == 2 for kind in kinds)
    width, pooled = config.model.box_head.fc_channels, 7 * 7 * HEAD["channels"]
    assert re.search(rf"tensor<\d+x{pooled}xbf16>, tensor<{pooled}x{width}xbf16>", half)
    assert re.search(rf"tensor<\d+x{width}xf32>, tensor<{width}x{config.model.num_classes + 1}xf32>", half)
    assert "bf16" not in text("float32")


def test_a_batch_that_does_not_divide_among_the_devices_is_an_error(config):
    told = "config.train.batch_size=8 does not divide among 3 devices: take --config.train.batch_size=6 or 9"
    with pytest.raises(UserError, match=f"^{told}$"):
        describe(config, data_mesh(jax.devices()[:3]))
    told = "batch_size=4 does not divide among 3 devices in 2 parts each: take --config.train.batch_size=6"
    with pytest.raises(UserError, match=f"{told}$"):
        describe(config.changed({"train.batch_size": 4, "train.accumulate": 2}), data_mesh(jax.devices()[:3]))


PAPER = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("*_r*.py"))


@pytest.fixture(scope="module")
def tpus():
    """Four chips of a v5e that are not there."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (requirements-tpu.txt)")
    from c2am_jax.ahead.topology import topology_devices

    return data_mesh(topology_devices("v5e:2x2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_the_step_of_every_detector_of_the_paper_is_lowered_for_tpus(name, tpus):
    experiment = load_experiment(name).changed({"train.batch_size": 8, "train.compute_dtype": "bfloat16"})
    text = lower_step(experiment, tpus, (800, 1344))[0].as_text()
    assert "f64" not in text and "num_partitions = 4" in text


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train", "predict"])
def test_a_small_detector_compiled_for_tpus_fits_and_communicates_outside_of_loops(config, tpus, program):
    found = describe(config.changed({"eval.batch_size": 4}), tpus, program).numbers
    assert found["devices"] == "4 x TPU v5 lite" and found["memory_gib"]["fits"]
    assert found["estimate"]["ms"] > 0 and {"backbone", "proposals"} <= {
        r["name"] for r in found["estimate"]["by_part"]
    }
    if program == "train":
        assert set(found["collectives"]) == {"all-reduce"} and found["collectives"]["all-reduce"]["in_loop"] == 0
    else:
        assert found["collectives"] == {}
