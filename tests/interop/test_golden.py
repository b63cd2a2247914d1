"""The numbers of the PyTorch reference, stage by stage; and what the command says about other files."""

import json
from pathlib import Path

import numpy as np
import pytest

from c2am_jax.interop.comparison import Check, match_boxes, table, unmatched
from c2am_jax.interop.export_torch import write_weights
from c2am_jax.interop.golden import filled, main
from c2am_jax.interop.golden_inference import PIXEL, differing_pixels
from c2am_jax.interop.recording import Recording

OWN = Path(__file__).resolve().parents[1] / "golden"


def rows_of(file, tmp_path, capsys):
    """Rows of a recording; every one has to hold."""
    status = main([str(file), "--json", str(tmp_path / "rows.json")])
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
    "name",
    [
        "trajectory_fixed_mask_rcnn_r50",
        "trajectory_fixed_mask_rcnn_r50_c2am",
        "trajectory_mask_rcnn_r50_c2am",
    ],
)
def test_every_recorded_trajectory_is_followed(shared, tmp_path, capsys, name):
    stages = rows_of(shared / "reference" / "golden" / f"{name}.npz", tmp_path, capsys)
    assert any(stage.startswith("classifier weight norms") for stage in stages)


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
