"""Plans of pods: formulas against numbers worked out by hand, and what docs/scaling.md says of them."""

import json
from pathlib import Path

import pytest

from benchmarks import pods
from c2am_jax.config import load_experiment
from c2am_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# 4x4 v5e chips, 200 MB in 4 all-reduces. No side of 16, so a mesh with one link of 50 GB/s a dimension and way at its
# ends: 2 x 200 MB x 15/16 / 100 GB/s = 3.75 ms, and 2 x 4 x (3 + 3) hops of 1 us = 0.048 ms. 16x16 is a torus:
# 2 x 200 MB x 255/256 / 200 GB/s = 1.9921875 ms, and 2 x 4 x 30 us.
@pytest.mark.parametrize(
    ("kind", "sides", "ms"),
    [
        ("v5e", (4, 4), 3.75 + 0.048),
        ("v5e", (8, 16), 4 * 127 / 128 + 0.176),  # rings along one side only
        ("v5e", (16, 16), 1.9921875 + 0.24),
        ("v5e", (1, 1), 0.0),
        ("v5p", (2, 2, 1), 1.5 + 0.016),
        ("v5p", (4, 4, 4), 400 * 63 / 64 / 600 + 0.072),
    ],
)
def test_the_time_of_an_all_reduce_by_hand(kind, sides, ms):
    assert pods.all_reduce_ms(pods.KINDS[kind], sides, 200e6, 4) == pytest.approx(ms, rel=1e-12)


def test_a_plan_by_hand():
    # 16 chips x 2 images = 32; 100,000 / 32 = 3125 steps an epoch, 24 of them 75,000; 96.202 + 3.798 = 100 ms a step.
    step = pods.Step("row", "maskrcnn_r50_c2am", "v5e", 4, 2 * 96.202, 4, 200e6)
    found = pods.plan(step, "v5e:4x4", 2, load_experiment(step.config), epoch=99_999, state=400_000_000)
    expected = {
        "batch": 32,
        "learning_rate": 0.04,
        "step_ms": 96.202,
        "all_reduce_share": 0.03798,
        "images_per_s": 320.0,
        "input_cores": 80 / 296.5,  # of 4 chips, 20 images/s each
        "save_s": 2.0,
        "save_every_s": 200.0,
        "steps": 75_000,
        "hours": 7500 / 3600,
        "hours_overlapped": 7500 * 0.96202 / 3600,
        "chip_hours": 16 * 7500 / 3600,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-12)
    assert (found["slice"], found["vcpus"], found["linear_rate"]) == ("v5e-16", 112, "known")
    more = "no: 17 epochs for 14"
    assert [pods.linear_rate(batch) for batch in (128, 129, 272, 273)] == ["known", more, more, "not known"]
    with pytest.raises(UserError, match="v5p:2x2x1: the row 'row' is of a v5e; give the row of a v5p"):
        pods.plan(step, "v5p:2x2x1", 2, load_experiment(step.config), epoch=1, state=1)


def test_a_plan_from_a_row_of_topologies(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(pods, "state_bytes", lambda experiment: 1000)
    name, failed = "cascade_r50_c2am, bfloat16, 4", "cascade_r50_c2am, bfloat16, 8"
    command = ["train.py", "--dry_run", "--topology=v5p:2x2x1", "--config=cascade_r50_c2am"]
    told = {"program": "train", "images_per_device": 4, "estimate": {"ms": 80.0}}
    told["collectives"] = {"all-reduce": {"count": 5, "bytes": 402_000_000, "in_loop": 0}}
    row = {"row": name, "command": command, "numbers": told}
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n{json.dumps({'row': failed, 'command': command, 'error': 'too large'})}\n")
    arguments = ["v5p:4x4x4", "--topologies", str(file), "--images", "4", "--json", "--row"]
    assert pods.main([*arguments, name]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["slice"], found["batch"], found["step_ms"], found["vcpus"]) == ("v5p:4x4x4", 256, 80.0, 208)
    assert found["steps"] == 24 * 392  # 100,170 / 256
    assert pods.main([*arguments, failed]) == 2
    assert "no estimate of a training step: too large" in capsys.readouterr().err
    assert pods.main([*arguments, "no"]) == 2 and f"no row 'no'; there are: {name}" in capsys.readouterr().err


def test_the_estimate_of_plans_and_their_checkpoint_are_those_of_the_docs():
    """What benchmarks.pods takes for granted stands in the table of benchmarks.topologies; the text's numbers."""
    page = (ROOT / "docs/scaling.md").read_text()
    step = pods.ESTIMATED
    (cells,) = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| {step.row} | ")]
    sums = f"{step.all_reduces}, {step.all_reduce_bytes / 1e6:.0f} MB"
    assert cells[6] == f"{step.ms:.0f}" and cells[9].startswith(sums)
    found = pods.plans()
    assert round(found[0]["state_mb"]) == 403 and "A checkpoint has 403 MB" in page
    between = [line["save_every_s"] for line in found]
    assert f"{min(between):.0f} to {max(between):.0f} s apart" in page
    assert (found[3]["batch"], found[4]["batch"]) == (128, 256)
    saved = found[3]["hours"] - found[4]["hours"] * 17 / 14
    assert f"save at best {60 * saved:.0f} minutes" in page
