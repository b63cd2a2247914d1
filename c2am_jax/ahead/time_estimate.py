"""Time of a program by the TPU compiler's own estimates: cycles of each instruction, loops multiplied.

The compiler writes an estimate at fusions, convolutions, copies and reductions, none at sorts, gathers, scatters,
dynamic slices, collectives and calls of other code: these are listed, and the sum is a lower bound. Compilers for other
devices write none at all.
"""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from c2am_jax.ahead.executions import Executed, executions
from c2am_jax.ahead.hlo_text import Computation, Instruction, Module
from c2am_jax.ahead.parts import OTHER
from c2am_jax.ahead.work import instruction_flops

# Names for values that exist, or what runs others and is told by these.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id opt-barrier while call "
    "conditional async-start async-update async-done add-dependency".split()
)
IDLE_CALLS = ("AllocateBuffer", "ConcatBitcast")  # custom calls that only name memory
# What a fusion does, by the first of these that it holds.
TELLING = (
    ("convolution", ("convolution", "dot")),
    ("sort", ("sort",)),
    ("scatter", ("scatter",)),
    ("gather", ("gather",)),
    ("window", ("reduce-window", "select-and-scatter")),
    ("reduce", ("reduce",)),
    ("dynamic slice", ("dynamic-slice", "dynamic-update-slice")),
    ("pad", ("pad",)),
    ("concatenate", ("concatenate",)),
)
COPIES = frozenset("copy transpose reshape bitcast slice convert reverse copy-start slice-start".split())
ELEMENTWISE = frozenset(
    "add and broadcast clamp compare divide exponential iota log maximum minimum multiply negate not or power select "
    "sqrt subtract tanh xor".split()
)
SLOW = ("sort", "scatter", "gather", "topk", "custom-call", "all-")  # which are told first if they have no estimate
LISTED = 8  # costliest paths shown of what belongs to no part


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Cycles of one run on one device.

    Attributes:
      cycles: in all.
      by_part: of the detector, forward and backward.
      by_kind: of operation.
      other: of what belongs to no part, by kind and the end of its path of scopes; the costliest.
      loops: cycles, iterations, whether their number is known, part, path; of each loop.
    """

    cycles: int
    by_part: dict[str, int]
    by_kind: dict[str, int]
    other: dict[str, int]
    loops: list[dict[str, Any]]


def estimate(module: Module) -> Estimate | None:
    """The compiler's estimates added up; None where it made none."""
    executed = list(executions(module, _cost, inside_fusions=False))
    counted = [e for e in executed if e.instruction.cycles]
    if not counted:
        return None
    parts, kinds, other = collections.Counter(), collections.Counter(), collections.Counter()
    for e in counted:
        cycles, kind = e.times * (e.instruction.cycles or 0), kind_of(module, e.instruction)
        parts[e.part] += cycles
        kinds[kind] += cycles
        if e.part.startswith(OTHER):
            other[f"{kind}: {'/'.join(e.instruction.op_name.split('/')[-3:]) or e.instruction.name}"] += cycles
    return Estimate(
        cycles=sum(parts.values()),
        by_part=dict(parts.most_common()),
        by_kind=dict(kinds.most_common()),
        other=dict(other.most_common(LISTED)),
        loops=_loops(executed),
    )


def kind_of(module: Module, instruction: Instruction) -> str:
    """What an instruction does, or of a fusion what tells most about it; its opcode where that says it best."""
    inside = {instruction.opcode}
    if instruction.opcode == "fusion":
        names = module.reached(instruction.called("calls"))
        inside = {i.opcode for name in names for i in module.computations[name].instructions.values()}
        inside -= FREE | {"broadcast", "iota"}
    for kind, opcodes in TELLING:
        if inside & {*opcodes}:
            return kind
    if inside <= COPIES:
        return "copy"
    return "elementwise" if instruction.opcode == "fusion" or inside <= ELEMENTWISE else instruction.opcode


def uncounted(module: Module, executed: Iterable[Executed]) -> list[dict[str, Any]]:
    """Instructions without an estimate, by opcode and part: first those of SLOW, the largest first.

    Only those of SLOW where the compiler estimates nothing at all.

    Each has "opcode", "part", "count" in the text, "times" it runs, "shape" of the largest result, and "mb": bytes of
    all results, times how often they are made.
    """
    executed = list(executed)
    estimated = any(e.instruction.cycles for e in executed)
    groups: dict[tuple[str, str], list[Executed]] = {}
    for e in executed:
        if not e.instruction.cycles and e.instruction.opcode not in FREE and not e.instruction.opcode.endswith("-done"):
            target = (e.instruction.attribute("custom_call_target") or "").strip('"')
            if target in IDLE_CALLS:
                continue
            opcode = f"custom-call {target}" if target else kind_of(module, e.instruction)
            if estimated or opcode.startswith(SLOW):
                groups.setdefault((opcode, e.part), []).append(e)
    found = []
    for (opcode, part), members in groups.items():
        largest = max((shape for e in members for shape in e.instruction.made), key=lambda s: s.size, default="")
        found.append(
            {
                "opcode": opcode,
                "part": part,
                "count": len(members),
                "times": sum(e.times for e in members),
                "shape": str(largest),
                "mb": round(sum(e.times * e.instruction.size for e in members) / 1e6, 3),
            }
        )
    return sorted(found, key=lambda row: (not row["opcode"].startswith(SLOW), -row["mb"]))


def _loops(executed: list[Executed]) -> list[dict[str, Any]]:
    """The loops, the costliest first."""
    cycles, places = collections.Counter(), {}
    for e in executed:
        if e.instruction.opcode == "while":
            places[e.instruction.name] = e
        for loop in e.loops:
            cycles[loop.instruction.name] += e.times * (e.instruction.cycles or 0)
    known = {loop.instruction.name: loop for e in executed for loop in e.loops}
    return sorted(
        (
            {
                "mcycles": round(cycles[name] / 1e6, 3),
                "trips": known[name].trips if name in known else 0,
                "known": known[name].known if name in known else True,
                "runs": e.times,
                "part": e.part,
                "op_name": e.instruction.op_name,
            }
            for name, e in places.items()
        ),
        key=lambda row: -row["mcycles"],
    )


def _cost(computation: Computation, instruction: Instruction) -> float:
    """Cycles, with the FLOPs as a small addition: where no instruction has an estimate these choose the branch."""
    return (instruction.cycles or 0) + 1e-9 * instruction_flops(computation, instruction)
