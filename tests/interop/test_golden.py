"""The numbers of the PyTorch reference, stage by stage; and what the command says about other files."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from c2am_jax.interop import golden_trajectory
from c2am_jax.interop.comparison import Check, match_boxes, table, unmatched
from c2am_jax.interop.export_torch import write_weights
from c2am_jax.interop.golden import filled, main
from c2am_jax.interop.golden_inference import PIXEL, differing_pixels
from c2am_jax.interop.recording import Recording

OWN = Path(__file__).resolve().parents[1] / "golden"


def rows_of(file, tmp_path, capsys, forms=""):
    """Rows of a recording; every one has to hold."""
    status = main([str(file), "--json", str(tmp_path / "rows.json"), *([f"--forms={forms}"] if forms else [])])
    output = capsys.readouterr().out
    assert status == 0, output
    rows = json.loads((tmp_path / "rows.json").read_text())[str(file)]
    assert all(row["ok"] for row in rows) and "rows hold" in output
    return {row["stage"] for row in rows}


COMMON = {"weights", "C5", "P6", "RoIAlign 7x7", "detections, whole chain", "gradients", "sampled anchors"}


def test_every_recorded_stage_of_mask_rcnn_with_c2am_is_reproduced(tmp_path, capsys):
    stages = rows_of(OWN / "mask_rcnn_r50_c2am.npz", tmp_path, capsys)
    assert COMMON | {"loss mask, recorded samples", "C2AM margins", "C2AM loss per RoI"} <= stages


@pytest.mark.slow  # three minutes; .ci/run asks for it by name
def test_every_recorded_stage_of_the_cascade_is_reproduced(tmp_path, capsys):
    stages = rows_of(OWN / "cascade_mask_rcnn_r50.npz", tmp_path, capsys)
    later = {"sampled RoIs, recorded samples before, stage 2", "box deltas, fixed RoIs, stage 1"}
    assert COMMON | later | {"refined boxes, recorded proposals", "loss s2.box, recorded samples"} <= stages


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn_r50", "mask_rcnn_r101", "mask_rcnn_r50_padded", "mask_rcnn_r50_seesaw"])
def test_every_other_recording_is_reproduced(shared, tmp_path, capsys, name):
    assert rows_of(shared / "reference" / "golden" / f"{name}.npz", tmp_path, capsys) >= COMMON


@pytest.mark.slow
def test_an_exported_file_gives_the_recorded_numbers(tmp_path, capsys):
    file = OWN / "mask_rcnn_r50_c2am.npz"
    detector, _ = filled(Recording(file))
    write_weights(tmp_path / "exported.safetensors", detector.value.arrays)
    assert main([str(file), "--weights", str(tmp_path / "exported.safetensors")]) == 0
    assert "all 65 rows hold" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("trajectory_fixed_mask_rcnn_r50", ""),
        ("trajectory_fixed_mask_rcnn_r50_c2am", ""),
        ("trajectory_fixed_mask_rcnn_r50_c2am", "tpu"),
        ("trajectory_fixed_mask_rcnn_r50_c2am", "cuda"),
        ("trajectory_mask_rcnn_r50_c2am", ""),
    ],
)
def test_every_recorded_trajectory_is_followed(shared, tmp_path, capsys, name, forms):
    stages = rows_of(shared / "reference" / "golden" / f"{name}.npz", tmp_path, capsys, forms)
    assert {stage.split(",")[1].strip() for stage in stages if stage.startswith("loss total")} == {"float32", "float64"}


class Trajectory(dict):
    """A recorded run of four steps with the keys that rows read."""

    steps, images = 4, 1


def test_rows_of_a_trajectory_are_those_of_their_steps():
    losses = [{"rpn_cls": 1.0 + n, "rpn_box": 2.0, "cls": 3.0, "box": 0.5, "mask": 0.25} for n in range(4)]
    metrics = {"roi/positive": 5.0, "roi/sampled": 16.0}
    norms = [{"": np.array([1.0, 2.0]) + n} for n in range(5)]
    run = golden_trajectory._Run(
        [(found, metrics, {"a": 3.0, "b": 4.0}) for found in losses], {"step1": {"a": 2.0}}, norms
    )
    recorded = {"loss.total": [sum(found.values()) for found in losses], "class_norms_s0": [own[""] for own in norms]}
    recorded |= {"grad_l2": [5.0] * 4, "samples": [[[1, 1], [5, 11]]] * 4, "step1.mom_l2": [2.0]}
    for name, of_reference in golden_trajectory.recorded_names(1).items():
        recorded[f"loss.{of_reference[0]}"] = [found[name] for found in losses]
    recording = Trajectory({f"f64.{name}": np.array(values) for name, values in recorded.items()}, param_names=["a"])
    detector = SimpleNamespace(stages=1)

    def failing(limits, **steps):
        return {
            row.stage
            for row in golden_trajectory._rows(recording, detector, run, limits, "float64", **steps)
            if not row.ok
        }

    strict = golden_trajectory._Limits(1e-9, 1e-9, losses=1e-9, gradient=1e-9, momenta={"step1": {"worst": 1e-9}})
    assert failing(strict) == set()
    recording["f64.loss.total"][2] += 0.1
    recording["f64.class_norms_s0"][4, 1] += 0.1  # after the last step
    assert failing(strict) == {"loss total, float64, all steps", "classifier weight norms, float64, all steps"}
    assert failing(strict, end=2) == set()
    assert failing(strict, first=2) == {"loss total, float64, steps 2-3", "classifier weight norms, float64, steps 2-3"}
    recording["f64.samples"][3, 1, 0] += 1
    recording["f64.grad_l2"][0] += 1
    recording["f64.step1.mom_l2"][0] += 1
    recording["f64.loss.loss_mask"][1] += 1
    assert failing(strict, end=2) == {
        "gradient norm, float64, steps 0-1",
        "momentum norms, float64, step 1",
        "loss mask, float64, steps 0-1",
    }
    assert "sampled RoIs, float64, all steps" in failing(strict)


@pytest.mark.parametrize(
    "meta, message",
    [
        ({"kind": "retinanet_r50", "sizes": []}, "unknown kind 'retinanet_r50'"),
        ({"sizes": []}, "not a recording"),
    ],
)
def test_a_recording_of_another_kind_is_one_clear_error(tmp_path, capsys, meta, message):
    np.savez(tmp_path / "other.npz", meta=json.dumps(meta))
    assert main([str(tmp_path / "other.npz")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_one_clear_error(tmp_path, capsys):
    assert main([str(tmp_path / "none.npz")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_place_for_the_rows_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    assert main([str(tmp_path / "none.npz"), f"--json={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"error: --json {tmp_path}: this is a folder; name a file\n"


def test_a_pixel_may_differ_only_where_its_probability_is_close_to_one_half():
    probability = np.full((7, 10), 0.9, np.float32)
    recorded = np.ones((7, 10), bool)
    assert differing_pixels(probability, recorded) == (0.0, 0, 70)
    probability[0, 0] = 0.4999
    far, count, covered = differing_pixels(probability, recorded)
    assert far == pytest.approx(1e-4, rel=1e-2) and (count, covered) == (1, 70)
    recorded[3, 3] = False
    assert differing_pixels(probability, recorded)[0] == pytest.approx(0.4) and PIXEL < 0.4


def test_a_row_fails_beyond_its_tolerance_and_without_a_number():
    rows = [
        Check("a", "x", 1e-6, 1e-5),
        Check("b", "x", 2e-5, 1e-5),
        Check("c", "x", float("nan"), 1e-5),
    ]
    assert [row.ok for row in rows] == [True, False, False]
    assert [line.split()[-1] for line in table(rows).splitlines()] == ["ok", "yes", "NO", "NO"]


def test_boxes_match_by_overlap_score_and_label():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50.0]], np.float32)
    scores, labels = np.array([0.9, 0.8, 0.7]), np.array([1, 2, 3])
    moved = boxes + np.array([[0], [0], [1]], np.float32)
    options = {"iou": 0.99, "labels": labels}
    assert unmatched(match_boxes(boxes, scores, boxes, scores, other_labels=labels, **options)) == 0
    pairs = match_boxes(boxes, scores, moved, scores + [0, 1e-3, 0], other_labels=labels, **options)
    assert unmatched(pairs) == pytest.approx(2 / 3)
    assert unmatched(match_boxes(boxes, scores, boxes, scores, other_labels=labels[::-1], **options)) == pytest.approx(
        2 / 3
    )
    assert unmatched(pairs[:0]) == 1
