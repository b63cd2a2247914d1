"""What takes a device's main memory: the largest results, and what is alive where most of it is taken.

Read from the entry computation, whose order is the schedule. What loops hold inside counts as the loop's own values
only, and two results may share a place, so the sums here are near the compiler's analysis but not equal to it.
"""

import dataclasses
from typing import Any

from c2am_jax.ahead.hlo_text import Instruction, Module
from c2am_jax.ahead.parts import part_of

# Their results are their operands, or parts of them.
ALIASES = frozenset(
    "bitcast get-tuple-element tuple copy-done slice-done while opt-barrier after-all all-reduce-done async-done "
    "dynamic-update-slice add-dependency".split()
)
LEAST = 2**20  # bytes; smaller ones are not looked at
LISTED = 12


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A result in the device's main memory, alive from the instruction `born` to `last` of the entry computation.

    `size` is in bytes, padding included; `values` those of its values.
    """

    instruction: Instruction
    size: int
    values: int
    born: int
    last: int

    def row(self) -> dict[str, Any]:
        """For people: MiB with and without padding, shape, opcode, part."""
        shape = max(self.instruction.shapes, key=lambda s: s.padded_size)
        return {
            "mib": round(self.size / 2**20, 1),
            "values_mib": round(self.values / 2**20, 1),
            "shape": str(shape),
            "opcode": self.instruction.opcode,
            "part": part_of(self.instruction.op_name),
            "op_name": self.instruction.op_name,
        }


def buffers(module: Module) -> list[Buffer]:
    """All large results of the entry computation, in the order in which they are made; arguments are left out."""
    owners: dict[str, list[str]] = {}
    born: dict[str, tuple[int, Instruction, int, int]] = {}
    last: dict[str, int] = {}
    for place, instruction in enumerate(module.main.instructions.values()):
        read = [owner for name in instruction.operands for owner in owners.get(name, [name])]
        last |= dict.fromkeys(read, place)
        if instruction.opcode == "parameter":
            continue
        if instruction.opcode in ALIASES or "output_to_operand_aliasing" in instruction.attributes:
            owners[instruction.name] = read
            continue
        kept = [shape for shape in instruction.made if shape.space == 0]
        size = sum(shape.padded_size for shape in kept)
        if size >= LEAST:
            born[instruction.name] = place, instruction, size, sum(shape.size for shape in kept)
    return [Buffer(i, size, values, place, last.get(name, place)) for name, (place, i, size, values) in born.items()]


def largest(found: list[Buffer]) -> list[Buffer]:
    """The largest ones, the largest first."""
    return sorted(found, key=lambda buffer: -buffer.size)[:LISTED]


def at_peak(found: list[Buffer]) -> list[Buffer]:
    """What is alive where the sum is largest, the largest first."""
    alive = ([b for b in found if b.born <= at.born <= b.last] for at in found)
    peak = max(alive, key=lambda group: sum(b.size for b in group), default=[])
    return sorted(peak, key=lambda buffer: -buffer.size)
