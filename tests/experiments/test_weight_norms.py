"""Figure 1 from the files of an evaluation."""

import json

import pytest

from c2am_jax.experiments.weight_norms import load, main


def write_run(folder, name="toy", stages=("",), classes=8, step=5):
    """A run in which category k has norm 8 - k and AP (8 - k) / 10, but the last has no ground truth."""
    place = folder / "eval" / str(step)
    place.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": name}))
    rows = [{"id": k + 1, "name": f"n{k}", "image_count": 100 - k, "norm": float(classes - k)} for k in range(classes)]
    (place / "weight_norms.json").write_text(json.dumps({stage: {"categories": rows} for stage in stages}))
    aps = [
        {"id": 9 - k, "name": f"n{k}", "AP": (classes - k) / 10 if k < classes - 1 else -1.0} for k in range(classes)
    ]
    (place / "category_ap.json").write_text(json.dumps({"segm": aps[::-1]}))
    return folder


def test_ends_are_means_over_categories_that_have_an_ap(tmp_path):
    (run,) = load(write_run(tmp_path / "a"))
    assert run.ends(2) == pytest.approx((0.75, 0.25))
    assert run.norm.tolist() == [8, 7, 6, 5, 4, 3, 2, 1] and run.spread() == 8


def test_newest_step_and_stages_of_a_cascade(tmp_path):
    write_run(tmp_path / "a", step=900)
    folder = write_run(tmp_path / "b", stages=("s0", "s1"), step=1000)
    assert [run.title for run in load(folder)] == ["toy s0", "toy s1"]
    with pytest.raises(Exception, match="eval/900/weight_norms.json does not exist"):
        load(folder, 900)


def test_command_draws_any_number_of_runs_and_small_sets_do_not_overlap(tmp_path, capsys):
    runs = [write_run(tmp_path / name, name) for name in "abc"]
    given = [text for run in runs for text in ("--workdir", str(run))]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "figure1.png").stat().st_size > 10_000
    output = capsys.readouterr().out
    assert output.count("first 3: 70.0, last 3: 30.0") == 3


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert main(["--workdir", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no evaluation there" in capsys.readouterr().err
    run = write_run(tmp_path / "a")
    (run / "eval" / "5" / "category_ap.json").write_text('{"bbox": []}')
    assert main(["--workdir", str(run), "--out", str(tmp_path)]) == 2
    (run / "eval" / "5" / "category_ap.json").write_text("{")
    assert main(["--workdir", str(run), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "not what this version's evaluation writes" in error and "not JSON" in error and error.count("\n") == 2
