"""Where a compiled step spends its time, by the named scopes of the detector."""

import collections
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from c2am_jax.ahead.hlo_text import parse
from c2am_jax.ahead.parts import part_of

_CONTAINERS = {"while", "call", "conditional"}  # their bodies' instructions are events of their own
STEPS = 3


def instructions(hlo: str) -> dict[str, str]:
    """Instruction name -> part, of an optimised module's text; instructions that contain others are left out."""
    return {
        instruction.name: part_of(instruction.op_name)
        for computation in parse(hlo).computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode not in _CONTAINERS
    }


def _events(file: Path) -> Iterator[tuple[str, float]]:
    """Instruction name and nanoseconds of every execution on the device.

    On a CPU an instruction may go on after its event ends, in other threads; an event "end: NAME" whose `_c` is the
    first one's `_p` then tells when it was done.
    """
    begun: dict[int, tuple[str, float, float]] = {}
    ended: dict[int, float] = {}
    for plane in ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    key = int(stats.get("_p", -1 - len(begun)))  # type: ignore[arg-type]
                    begun[key] = (str(stats["hlo_op"]), event.start_ns, event.duration_ns)
                elif event.name.startswith("end: ") and "_c" in stats:
                    ended[int(stats["_c"])] = event.start_ns  # type: ignore[arg-type]
    for key, (name, start, duration) in begun.items():
        yield name, max(duration, ended.get(key, start) - start)


def profile(hlo: str, step: Callable[[], Any], folder: str) -> list[dict[str, Any]]:
    """Run `step` three times under the profiler; parts by time, with seconds per step and share of all parts."""
    with jax.profiler.trace(folder):
        for _ in range(STEPS):
            step()
    newest = max(Path(folder).rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    table, total = instructions(hlo), collections.Counter()
    for name, nanoseconds in _events(newest):
        if name in table:
            total[table[name]] += nanoseconds
    whole = sum(total.values())
    return [
        {"part": part, "seconds": round(time / STEPS / 1e9, 4), "share": round(time / whole, 4)}
        for part, time in total.most_common()
    ]
