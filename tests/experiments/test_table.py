"""The tables command: plans, skips what is finished, resumes after a kill, and says what was not run."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c2am_jax.errors import EXIT_STOPPED
from c2am_jax.experiment import flat
from c2am_jax.experiments import runs
from c2am_jax.experiments.rows import BUILT_IN, DATA, TABLES, rows_of, start_of
from c2am_jax.experiments.table import main, planned_run
from c2am_jax.training.initial import settings_of

ROOT = Path(__file__).parents[2]
STEPS = ["--override", "train.steps=4", "--first", "train.steps=4"]
FOUR = {"train.steps": 4}
FAKE = """
import json, os, pathlib, shutil, sys, time
given = dict(text.split("=", 1) for text in sys.argv[1:])
workdir = pathlib.Path(given["--workdir"])
with open("started.txt", "a") as file:
    print(workdir.name, os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
if os.environ.get("FAKE_FAILS", "no") in workdir.name:
    sys.exit("error: out of luck")
shutil.copy(f"plans/{workdir.name}.json", workdir / "config.json")
done = max((int(p.name) for p in workdir.glob("checkpoints/*")), default=0)
with open("from.txt", "a") as file:
    print(workdir.name, done, file=file)
for step in range(done + 1, 5):
    (workdir / "checkpoints" / str(step)).mkdir(parents=True)
    with (workdir / "metrics.jsonl").open("a") as file:
        print(json.dumps({"step": step, "images_per_sec": 4.0}), file=file)
    if step == 2 and os.environ.get("FAKE_HANGS"):
        from c2am_jax.training.ownership import FILE, Claim
        (workdir / FILE).write_text(json.dumps(vars(Claim.mine())))
        pathlib.Path("hanging").touch()
        time.sleep(60)
(workdir / "eval/4").mkdir(parents=True)
seed = int(given["--config.train.seed"])
names = ("AP", "APr", "APc", "APf", "AP@25", "APr@25")
ap = 0.1 * (1 + seed)
values = {name: ap if name.startswith("AP@") else 0.2 if name == "AP" else -1 for name in names}
metrics = {f"{kind}/{name}": value for kind in ("segm", "bbox") for name, value in values.items()}
(workdir / "eval/4/metrics.json").write_text(json.dumps(metrics))
"""

WITH_FAKE = """
import sys
from c2am_jax.experiments import runs, table
runs.TRAIN = ("fake.py",)
sys.exit(table.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """A folder with the plans of the runs that the tests start."""
    folder, made = tmp_path_factory.mktemp("plans"), set()
    for number in TABLES:
        for row in rows_of(number, "glyphs"):
            for seed in (0, 1):
                last = planned_run(number, row, "glyphs", seed, Path("runs/tables"), FOUR, FOUR)
                for run in filter(None, (last, last.first)):
                    if run.workdir.name not in made:
                        text = json.dumps(run.experiment().as_dict())
                        (folder / f"{run.workdir.name}.json").write_text(text)
                        made.add(run.workdir.name)
    return folder


@pytest.fixture
def place(plans, tmp_path, monkeypatch):
    """A folder where training takes no time, and the plans of the runs that the tests start."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(runs, "TRAIN", ("fake.py",))
    (tmp_path / "plans").symlink_to(plans)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(place):
    file = place / "started.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.is_file() else []


def test_second_run_does_nothing_and_the_table_has_mean_and_deviation(place, capsys):
    command = ["4", "--seeds", "2", "--rows", "alpha=0", "alpha=0.5", *STEPS]
    assert main(command) == 0
    assert len(started(place)) == 2 + 4
    assert main(command) == 0
    assert len(started(place)) == 2 + 4
    text = (place / "runs/tables/table4_glyphs.md").read_text()
    row = "| α = 0.5 | 2 of 2 | 15.0 ± 7.1 | - | - | - | 15.0 ± 7.1 | 20.0 ± 0.0 | 20.0 ± 0.0 | 25.7 | - |"
    assert row in text
    assert text in capsys.readouterr().out.replace("\n\nruns", "\nruns")


def test_equal_rows_of_other_tables_are_the_same_run(place):
    assert main(["5", "--rows", "adaptive", *STEPS]) == 0
    assert main(["4", "--rows", "alpha=0.5", *STEPS]) == 0
    assert main(["3", "--rows", "scale=30", *STEPS]) == 0
    assert main(["one_stage", "--rows", "c2am", *STEPS]) == 0
    assert main(["fixed_margin", "--rows", "adaptive", *STEPS]) == 0
    assert len(started(place)) == 1 + 1
    assert main(["4", "--rows", "alpha=0", *STEPS]) == 0
    assert main(["5", "--rows", "none", *STEPS]) == 0
    assert len(started(place)) == 2 + 1


def test_rows_start_from_their_first_stage_which_trains_once(place):
    assert main(["6", "--rows", "bags", "lws", "balms", "c2am", "--seeds", "2", *STEPS]) == 0
    names = started(place)
    assert {name.split("-")[0] for name in names[:4]} == {"glyphs_ce", "glyphs_balanced_sigmoid"} and len(names) == 12
    plans = {name: json.loads((place / f"plans/{name}.json").read_text())["train"] for name in names[4:]}
    for name, train in plans.items():
        kind, seed = "balanced_sigmoid" if "balms" in name else "ce", name[-1]
        (first,) = (other for other in names[:4] if other.startswith(f"glyphs_{kind}-") and other.endswith(seed))
        assert train["init"] == f"runs/tables/{first}" and train["steps"] == 4
        assert bool(train["reset"]) == ("bags" in name or "c2am" in name)


def test_first_stages_are_rows_beside_what_starts_from_them(place):
    assert main(["two_stage", *STEPS]) == 0
    names = started(place)
    seconds = [name for name in names if "-after_" in name]
    assert len(names) == len(set(names)) == 3 + len(seconds)
    assert sum("-after_glyphs_ce" in name for name in seconds) == len(seconds) - 2 == 6
    assert main(["6", "--rows", "loce", "balms", *STEPS]) == 0 and started(place) == names


def test_data_and_model_are_those_of_the_first_stage_too():
    (row,) = rows_of("5", "glyphs", ["adaptive"])
    user = {"data.workers": 1, "loss.background": "all", "train.steps": 9}
    run = planned_run("5", row, "glyphs", 0, Path("runs"), user, {"train.init": "weights.npz"})
    first = run.first.experiment()
    assert (first.data.workers, first.train.steps, first.train.init) == (1, 0, "weights.npz")
    assert run.experiment().loss.parameters["background"] == "all"
    assert run.experiment().train.steps == 9


def test_a_failed_first_stage_fails_what_starts_from_it(place, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "balanced_sigmoid")
    assert main(["6", "--rows", "lws", "balms", *STEPS]) == 1
    text = (place / "runs/tables/table6_glyphs.md").read_text()
    assert "| BALMS, second stage | 0 of 1 | failed |" in text and "| LWS, second stage | 1 of 1 | 10.0 |" in text
    assert capsys.readouterr().err.count("\n") == 1 and not any("balms" in name for name in started(place))


def test_failed_row_is_marked_and_others_run(place, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "cosine")
    assert main(["5", *STEPS]) == 1
    text = (place / "runs/tables/table5_glyphs.md").read_text()
    assert "| none (cosine) | 0 of 1 | failed |" in text and "| adaptive (C2AM) | 1 of 1 | 10.0 |" in text
    assert "error: out of luck" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_goes_on_after_a_kill_in_the_middle_of_a_row(place, how):
    command = [sys.executable, "-c", WITH_FAKE, "2", "--rows", "mask_r50_c2am", *STEPS]
    environment = os.environ | {"FAKE_HANGS": "1", "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    while not (place / "hanging").exists():
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(how)
    assert first.wait() in (EXIT_STOPPED, -signal.SIGKILL)
    if how == signal.SIGKILL:  # train.py lives on, and nobody else may train there
        assert main(["2", "--rows", "mask_r50_c2am", *STEPS]) == 2
        os.killpg(first.pid, signal.SIGKILL)
        time.sleep(0.2)
    assert main(["2", "--rows", "mask_r50_c2am", *STEPS]) == 0
    assert [line.split()[1] for line in (place / "from.txt").read_text().splitlines()] == ["0", "2"]


def test_dry_run_counts_steps_and_time_from_the_logs_and_trains_nothing(place, capsys):
    assert main(["5", "--rows", "adaptive", *STEPS]) == 0
    capsys.readouterr()
    assert main(["5", *STEPS, "--dry_run"]) == 0
    output = capsys.readouterr().out
    assert len(started(place)) == 2
    assert "12 steps to train" in output and output.count("finished") == 2  # the first stage and one row
    assert main(["2", *STEPS, "--dry_run", "--step_seconds", "900", "--rows", "mask_r50_c2am"]) == 0
    assert "about 1.00 h" in capsys.readouterr().out
    assert main(["2", *STEPS, "--dry_run", "--rows", "mask_r50_c2am"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "# 4 steps to train, time unknown; 1 run without a known step time: give --step_seconds"
    assert main(["5", *STEPS, "--dry_run", "--step_seconds", "900", "--seeds", "2", "--rows", "none"]) == 0
    output = capsys.readouterr().out
    assert "12 steps to train, about 3.00 h" in output  # seed 1 needs a first stage, too
    commands = [shlex.split(line, comments=True) for line in output.splitlines()]
    commands = [command for command in commands if command]
    assert len(commands) == 4 and {command[0] for command in commands} == {sys.executable}


def test_device_sets_run_side_by_side(place):
    assert main(["5", *STEPS, "--devices", "0,1", "2,3"]) == 0
    used = {line.split()[1] for line in (place / "started.txt").read_text().splitlines()}
    assert used == {"0,1", "2,3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4", "--rows", "alpha=2"], "--rows alpha=2: table 4 on glyphs has alpha=0 "),
        (["4", "--override", "train.stepz=3"], "train.stepz: no such setting; did you mean train.steps?"),
        (["4", "--override", "train.seed=3"], "seeds come from --seeds"),
        (["4", "--seeds", "0"], "--seeds 0: at least 1"),
    ],
)
def test_wrong_input_is_one_line(place, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not started(place)


@pytest.mark.parametrize("data", DATA)
def test_every_row_has_a_config_that_takes_its_overrides(data, monkeypatch):
    monkeypatch.chdir(ROOT)
    for number in TABLES:
        for row in rows_of(number, data):
            run = planned_run(number, row, data, 0, Path("runs"), {}, {})
            published = f"imagenet:resnet{run.experiment().model.backbone.depth}" if data not in BUILT_IN else "random"
            start = settings_of(run.experiment()).init
            assert start == (str(run.first.workdir) if run.first else published)
            for key, value in ({} if row.first else start_of(number, row, data)[1] | row.overrides).items():
                assert flat(run.experiment().as_dict())[key] == value


@pytest.mark.slow
def test_real_rows_train_and_a_second_run_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = {"train.steps": 2, "train.batch_size": 2, "data.dir": str(tmp_path / "data"), "data.workers": 1}
    given = [text for key, value in overrides.items() for text in ("--override", f"{key}={value}")]
    given += ["--first", "train.steps=2", "--first", "train.batch_size=2"]
    command = ["4", "--rows", "alpha=0.1", "--out", str(tmp_path / "out"), *given]
    assert main(command) == 0
    (log,) = tmp_path.glob("out/glyphs_c2am*/train.log")
    before = log.read_text()
    assert "step 2, 300 images of glyphs_val" in before
    assert main(command) == 0 and log.read_text() == before
