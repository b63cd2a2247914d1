"""One run trains in a workdir; the commands say who, and resume when the owner is gone."""

import json
import os
import re
import signal
import threading
import time

import pytest
from commands import output, run, start, wait_for

from c2am_jax.errors import EXIT_INTERRUPTED, EXIT_STOPPED, UserError
from c2am_jax.training import ownership
from c2am_jax.training.ownership import FILE, Claim, Ownership

REFUSED = r"error: .*: another training runs there \(process {} on \S+, since 20\d\d-\d\d-\d\d [\d:]+ UTC\): wait"


def logged(workdir):
    file = workdir / "metrics.jsonl"
    return file.read_text().splitlines() if file.is_file() else []


def test_the_second_training_is_refused_and_ctrl_c_saves(glyph_folder, tmp_path):
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    endless = {"train__steps": 100_000, "train__checkpoint_every": 2, "cache": cache}
    first = start("train.py", workdir, glyph_folder, **endless)
    wait_for(lambda: len(logged(workdir)) > 3, first)

    status, _, error = run("train.py", workdir, glyph_folder, **endless)
    assert status == 2 and re.search(REFUSED.format(first.pid), error)
    assert "Traceback" not in error
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match=f"process {first.pid} on"):  # suspended: it lives
        Ownership(workdir).__enter__()
    first.send_signal(signal.SIGCONT)

    first.send_signal(signal.SIGINT)  # with a save in every second step
    status, shown, error = output(first)
    step = re.search(r"asked to stop: step (\d+) is saved in \S+; run the same command again to resume", error)
    assert status == EXIT_STOPPED and step and "Traceback" not in error, error
    told = "stopping: this step is finished (and compiled, if it is a first one) and saved first"
    assert f"{told}; Ctrl-C again stops at once" in error
    assert "100 classes, 24 images, 12 steps an epoch, 100000 steps: warm-up 2, drops at 70000 and 90000" in shown
    assert not (workdir / FILE).exists()

    second = start("train.py", workdir, glyph_folder, **endless)
    wait_for(lambda: int(json.loads((logged(workdir) or ['{"step": 0}'])[-1])["step"]) > int(step[1]), second)
    second.send_signal(signal.SIGKILL)
    status, shown, _ = output(second)
    assert f"resumed from step {step[1]}" in shown
    assert json.loads((workdir / FILE).read_text())["process"] == second.pid

    third = start("train.py", workdir, glyph_folder, **endless)  # the dead owner's claim lapses
    wait_for(lambda: (workdir / FILE).is_file() and str(third.pid) in (workdir / FILE).read_text(), third)
    time.sleep(1)
    wait_for(lambda: _listens(third.pid), third)
    third.send_signal(signal.SIGINT)
    third.send_signal(signal.SIGINT)
    status, _, error = output(third)
    assert status in (EXIT_INTERRUPTED, EXIT_STOPPED) and "Traceback" not in error


def _listens(process):
    """Whether its training loop has its own handler of SIGINT: TERM is caught from then on."""
    with open(f"/proc/{process}/status") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1


def write(workdir, **values):
    claim = Claim.mine().__dict__ | values
    (workdir / FILE).write_text(json.dumps(claim))


def test_a_dead_owner_and_a_number_that_is_used_again_lapse(tmp_path):
    write(tmp_path, process=2**22 + 1)
    with Ownership(tmp_path):
        pass
    write(tmp_path, started="1")  # this process, but an older one of the same number
    with Ownership(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["process"] == os.getpid()
    assert not (tmp_path / FILE).exists()


def test_an_owner_elsewhere_keeps_its_claim_as_long_as_it_renews_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT_S", 0.1)
    monkeypatch.setattr(ownership, "LAPSE_S", 1.0)
    write(tmp_path, kernel="another", host="node7", process=12)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.1):
            os.utime(tmp_path / FILE)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="process 12 on node7, since"):
            Ownership(tmp_path).__enter__()
    finally:
        stop.set()
        thread.join()
    with Ownership(tmp_path) as owner:  # no sign of life any more
        owner.check()
        write(tmp_path, kernel="another", host="node8", process=13)  # which took this one for dead
        time.sleep(0.5)
        with pytest.raises(UserError, match="process 13 on node8.* trains here now"):
            owner.check()
    assert "node8" in (tmp_path / FILE).read_text()


def test_a_workdir_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: this workdir can't be written"):
        Ownership(tmp_path / "file" / "run").__enter__()


def test_a_broken_claim_is_not_taken_over_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "LAPSE_S", 0.3)
    (tmp_path / FILE).write_text("{")
    with Ownership(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["process"] == os.getpid()


def test_no_lock_file_is_left(tmp_path):
    with Ownership(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == [FILE]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), Ownership(tmp_path):
        raise ZeroDivisionError  # as a start that fails
    assert list(tmp_path.iterdir()) == []
