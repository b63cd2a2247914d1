"""What the kernels of a program read and write: for compilers that estimate no time."""

import collections
from collections.abc import Iterable
from typing import Any

from c2am_jax.ahead.executions import Executed
from c2am_jax.ahead.time_estimate import FREE


def by_part(executed: Iterable[Executed]) -> list[dict[str, Any]]:
    """Kernels by part, those that move most first.

    Each row has "part", "kernels" that run, loops multiplied, and "gb" of their operands and results. That is an upper
    bound of what moves through memory: an operand counts whole where a kernel reads a slice of it.
    """
    number, moved = collections.Counter(), collections.Counter()
    for e in executed:
        if e.instruction.opcode in FREE or e.instruction.opcode.endswith("-done"):
            continue
        known = e.computation.instructions
        read = sum(known[name].size for name in e.instruction.operands if name in known)
        number[e.part] += e.times
        moved[e.part] += e.times * (read + e.instruction.size)
    return [{"part": part, "kernels": number[part], "gb": round(size / 1e9, 6)} for part, size in moved.most_common()]
