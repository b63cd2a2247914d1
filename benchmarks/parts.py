"""Where a compiled step spends its time, by the named scopes of the detector."""

import collections
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

# `jax.named_scope`s of models/, ops/preprocess.py and training/step.py; of nested ones the innermost counts.
PARTS = (
    "preprocess backbone neck rpn proposals anchor_sampling rpn_loss roi_sampling roi_align box_head classification "
    "box_regression mask_targets mask_head nms optimizer"
).split()
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z][\w\-]*)\(")
_NAME = re.compile(r'op_name="([^"]*)"')
_CONTAINERS = {"while", "call", "conditional"}  # their bodies' instructions are events of their own
STEPS = 3


def part_of(op_name: str) -> str:
    """The innermost part of an instruction's path of scopes, with " backward" behind a transposed one."""
    found = [(m.start(), m[1]) for m in re.finditer(rf"\b({'|'.join(PARTS)})\b", op_name)]
    name = found[-1][1] if found else "other"
    return f"{name} backward" if "transpose(" in op_name else name


def instructions(hlo: str) -> dict[str, str]:
    """Instruction name -> part, of an optimised module's text; instructions that contain others are left out."""
    table = {}
    for line in hlo.splitlines():
        found = _INSTRUCTION.match(line)
        if found and found[2] not in _CONTAINERS:
            name = _NAME.search(line)
            table[found[1]] = part_of(name[1] if name else "")
    return table


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
