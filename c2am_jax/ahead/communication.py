"""The collectives of a module."""

import dataclasses

from c2am_jax.ahead.hlo_text import Instruction, Module

KINDS = (
    "all-reduce all-gather reduce-scatter all-to-all ragged-all-to-all collective-permute collective-broadcast"
).split()
BETWEEN_SLICES = "between slices"  # what a device receives of other slices: the TPU runtime carries it, host to host


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program: its kind, the bytes of its result, whether it runs inside a loop."""

    kind: str
    bytes: int
    in_loop: bool


def collectives(module: Module) -> list[Collective]:
    """All of them, in the order of the text."""
    loops = (i for c in module.computations.values() for i in c.instructions.values() if i.opcode == "while")
    looped = module.reached([name for loop in loops for name in loop.called("body", "condition")])
    return [
        # A recv has its state and a token behind the array.
        Collective(kind, instruction.shapes[0].size if kind == BETWEEN_SLICES else instruction.size, name in looped)
        for name, computation in module.computations.items()
        for instruction in computation.instructions.values()
        if (kind := _kind(instruction))
    ]


def _kind(instruction: Instruction) -> str | None:
    if instruction.opcode == "recv" and "xla_megascale" in instruction.attributes:
        return BETWEEN_SLICES
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def by_kind(found: list[Collective]) -> dict[str, dict[str, int]]:
    """Per kind: "count", "bytes" and how many are "in_loop"."""
    kinds: dict[str, dict[str, int]] = {}
    for collective in found:
        kind = kinds.setdefault(collective.kind, {"count": 0, "bytes": 0, "in_loop": 0})
        kind["count"] += 1
        kind["bytes"] += collective.bytes
        kind["in_loop"] += collective.in_loop
    return kinds
