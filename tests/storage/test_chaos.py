"""What benchmarks.chaos sees of a run that it kills."""

import json
import sys

import pytest

from benchmarks import chaos
from c2am_jax.files import as_path


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_chaos_sees_losses_and_saves_of_a_run_on_a_disk_and_in_a_bucket(place, tmp_path, monkeypatch, request):
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    if place == "bucket":
        request.getfixturevalue("emulator")
    workdir = as_path("gs://pods/chaos/disturbed" if place == "bucket" else tmp_path / "disturbed")
    local = chaos.growing(workdir)
    assert chaos.losses(local) == chaos.losses(workdir) == {} and not chaos.saving(workdir)
    local.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 1, "loss": 2.5}, {"step": 1, "mask_ap": 0.1}, {"step": 2, "loss": 2.25}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo'  # being written
    (local / "metrics.jsonl").write_text(text)
    assert chaos.losses(local) == {1: 2.5, 2: 2.25}
    assert chaos.losses(workdir) == ({} if place == "bucket" else {1: 2.5, 2: 2.25})  # sent with the next save
    unfinished = workdir / "checkpoints" / ("7" if place == "bucket" else "7.orbax-checkpoint-tmp-1")
    unfinished.mkdir(parents=True)
    (unfinished / "params").write_text("half")
    assert chaos.saving(workdir)
    if place == "bucket":
        (unfinished / "commit_success.txt").write_text("")
    else:
        unfinished.rename(unfinished.with_name("7"))
    assert not chaos.saving(workdir) and chaos.saved_steps(workdir / "checkpoints") == [7]


def test_chaos_keeps_what_is_local_on_this_machine(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chaos", "--folder", "gs://pods/chaos"])
    with pytest.raises(SystemExit, match="2"):
        chaos.main()
    assert "--workdir takes a bucket" in capsys.readouterr().err
