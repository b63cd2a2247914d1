"""The numbers of the PyTorch reference, stage by stage; and what the command says about other files."""

import json

import numpy as np
import pytest

from c2am_jax.interop.golden import main
from c2am_jax.interop.rows import Row, match_boxes, table, unmatched


@pytest.mark.parametrize("kind", ["mask_rcnn_r50", "mask_rcnn_r50_c2am"])
def test_every_recorded_stage_is_reproduced(shared, tmp_path, capsys, kind):
    file = shared / "reference" / "golden" / f"{kind}.npz"
    status = main([str(file), "--json", str(tmp_path / "rows.json")])
    output = capsys.readouterr().out
    assert status == 0, output
    rows = json.loads((tmp_path / "rows.json").read_text())[str(file)]
    stages = {row["stage"] for row in rows}
    assert {"C5", "P6", "RoIAlign 7x7", "detections, whole chain", "gradients", "loss mask, recorded samples"} <= stages
    assert all(row["ok"] for row in rows) and "rows hold" in output


@pytest.mark.parametrize(
    "meta, message",
    [
        ({"kind": "cascade_mask_rcnn_r50", "sizes": []}, "'cascade_mask_rcnn_r50' is not supported yet"),
        ({"kind": "mask_rcnn_r50", "sizes": [], "steps": 12}, "trajectories"),
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


def test_a_row_fails_beyond_its_tolerance_and_without_a_number():
    rows = [Row("a", "x", 1e-6, 1e-5), Row("b", "x", 2e-5, 1e-5), Row("c", "x", float("nan"), 1e-5)]
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
