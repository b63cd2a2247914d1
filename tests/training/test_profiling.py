"""`--profile` writes one trace, of the steps asked for."""

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from c2am_jax.files import as_path
from c2am_jax.training.profiling import StepTrace


@jax.jit
def work(x):
    return jnp.sin(x @ x)


def run(folder, steps, profiled, start=0):
    x = jnp.ones((64, 64))
    with StepTrace(folder, profiled, start) as trace:
        for number in range(start, start + steps):
            with trace.step(number):
                x = work(x)
            trace.taken(number, x)


def traced_steps(folder):
    (file,) = folder.rglob("*.xplane.pb")
    events = [e for plane in ProfileData.from_file(str(file)).planes for line in plane.lines for e in line.events]
    return sorted({dict(e.stats)["step_num"] for e in events if e.name == "train"})


@pytest.mark.parametrize(("start", "steps", "wanted"), [(0, 6, [2, 3]), (100, 6, [102, 103]), (0, 3, [2])])
def test_two_steps_are_traced_after_the_compilation_even_when_the_run_ends_early(tmp_path, start, steps, wanted):
    run(tmp_path, steps, 2, start)
    assert traced_steps(tmp_path) == wanted


def test_a_trace_goes_to_a_bucket_when_it_ends(emulator, tmp_path):
    run(as_path("gs://pods/run/profile"), 6, 2)
    (file,) = (name for name in emulator.names("run/profile/plugins") if name.endswith(".xplane.pb"))
    (tmp_path / "a.xplane.pb").write_bytes(emulator.content(file))
    assert traced_steps(tmp_path) == [2, 3]


def test_nothing_is_written_unless_asked(tmp_path):
    run(tmp_path, 4, 0)
    assert not list(tmp_path.iterdir())
