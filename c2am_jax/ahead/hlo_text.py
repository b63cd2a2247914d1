"""An optimised HLO module's text as values: computations, instructions, shapes with the layout that memory has.

The text is what ``jax.stages.Compiled.as_text()`` returns. Only what the readers beside this module ask for is taken
apart; everything else of an instruction stays text in `Instruction.attributes`.
"""

import dataclasses
import functools
import math
import re

_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT\s+)?%?([\w.\-]+)\s*=\s*")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_SHAPE = re.compile(r"\b(pred|token|[a-z]+\d+[a-z0-9]*)\[([^\]]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"T\(([^)]*)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_ELEMENT = re.compile(r"E\((\d+)\)")
_PARENTHESIS = re.compile(r"[()]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(body|condition|to_apply|calls|called_computations|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's type, sides and place.

    Attributes:
      kind: "f32", "bf16", "pred", ...
      dims: sides, as the program means them.
      order: dimensions from the fastest in memory to the slowest; empty where the text tells no layout.
      tile: sides of the tiles that the fastest dimensions are stored in, slowest first: (8, 128); empty without.
      space: memory space, 0 for the device's main memory; TPUs: 1 for the vector memory on the chip.
      bits: of an element in memory.
    """

    kind: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0
    bits: int = 32

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return -(-math.prod(self.dims) * self.bits // 8)

    @property
    def padded_size(self) -> int:
        """Bytes in memory: the fastest dimensions rounded up to whole tiles."""
        if not self.tile:
            return self.size
        sides = [self.dims[d] for d in reversed(self.order)]
        sides = [1] * (len(self.tile) - len(sides)) + sides
        for number, tile in enumerate(self.tile, start=len(sides) - len(self.tile)):
            sides[number] = -(-sides[number] // tile) * tile
        return -(-math.prod(sides) * self.bits // 8)

    def __str__(self) -> str:
        """ "bf16[2,200,336,256]"."""
        return f"{self.kind}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its module.
      opcode: "fusion", "dot", "while", ...
      shapes: of the result; several for a tuple, nested ones in a row.
      operands: names.
      arguments: the text between the parentheses: a constant's value, a parameter's number.
      attributes: the text behind the parentheses.
      is_root: its result is the computation's.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool = False

    def attribute(self, name: str) -> str | None:
        """The value of ``name=value``, without braces around it; None without one."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^\s,]+)", self.attributes)
        return found[1].strip("{}") if found else None

    def called(self, *kinds: str) -> list[str]:
        """Computations that it runs, such as those of "body" and "condition"; all of them without `kinds`."""
        return [
            name.strip().lstrip("%")
            for kind, names in _CALLED.findall(self.attributes)
            if not kinds or kind in kinds
            for name in names.strip("{}").split(",")
            if name.strip()
        ]

    @functools.cached_property
    def op_name(self) -> str:
        """Where in the program it comes from: JAX's path of scopes and the primitive; "" if the text tells nothing."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @functools.cached_property
    def cycles(self) -> int | None:
        """The TPU compiler's own estimate of one execution; None where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None

    @property
    def made(self) -> tuple[Shape, ...]:
        """The arrays of the result; what is only started names its operands too: first, or for a copy second."""
        count = len(self.operands)
        if not self.opcode.endswith("-start") or len(self.shapes) <= count:
            return self.shapes
        return self.shapes[:count] if self.opcode == "copy-start" else self.shapes[count : 2 * count]

    @property
    def size(self) -> int:
        """Bytes of the values of `made`."""
        return sum(shape.size for shape in self.made)


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the text, which is that of execution in a scheduled module."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """What it returns."""
        return next((i for i in self.instructions.values() if i.is_root), [*self.instructions.values()][-1])

    def operand(self, instruction: Instruction, number: int) -> Instruction | None:
        """The instruction that makes an operand; None if there is none."""
        names = instruction.operands
        return self.instructions.get(names[number]) if number < len(names) else None


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program: computations by name, the one that it starts with, and whether their order is a schedule."""

    computations: dict[str, Computation]
    entry: str
    is_scheduled: bool

    @property
    def main(self) -> Computation:
        """The computation that it starts with."""
        return self.computations[self.entry]

    def reached(self, start: list[str]) -> set[str]:
        """These computations and all that they run."""
        found: set[str] = set()
        waiting = list(start)
        while waiting:
            name = waiting.pop()
            if name in self.computations and name not in found:
                found.add(name)
                waiting += [c for i in self.computations[name].instructions.values() for c in i.called()]
        return found


def parse(text: str) -> Module:
    """The module of an optimised HLO text.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if line.startswith(("ENTRY", "%")) or (line[:1].isalpha() and line.endswith("{")):
            if found := _COMPUTATION.match(line):
                current = computations[found[2]] = Computation(found[2], {})
                entry = found[2] if found[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _instruction(line)):
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("no HLO text: it has no ENTRY computation")
    return Module(computations, entry, "is_scheduled=true" in text[:10_000])


def shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a type, written as in HLO: ``(f32[8,4]{1,0:T(8,128)}, s32[])``."""
    return tuple(_shape(*found) for found in _SHAPE.findall(text) if found[0] != "token")


def _shape(kind: str, dims: str, layout: str) -> Shape:
    order, _, physical = layout.partition(":")
    tile, space, element = (pattern.search(physical) for pattern in (_TILE, _SPACE, _ELEMENT))
    return Shape(
        kind,
        tuple(int(side.removeprefix("<=")) for side in dims.split(",") if side),
        tuple(int(dimension) for dimension in order.split(",") if dimension),
        tuple(int(side) for side in tile[1].split(",") if side.isdigit()) if tile else (),
        int(space[1]) if space else 0,
        int(element[1]) if element else _bits(kind),
    )


def _bits(kind: str) -> int:
    """8 for "pred" and "f8e4m3", 64 for "c64", 16 for "bf16"."""
    found = re.search(r"\d+", kind)
    return int(found[0]) if found else 8


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in _PARENTHESIS.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


def _instruction(line: str) -> Instruction | None:
    begun = _INSTRUCTION.match(line)
    if not begun:
        return None
    start = begun.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end)
    if not opcode:
        return None
    closing = _closing(line, opcode.end() - 1)
    arguments = line[opcode.end() : closing]
    return Instruction(
        name=begun[2],
        opcode=opcode[1],
        shapes=shapes(line[start:end]),
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments,
        attributes=line[closing + 1 :],
        is_root=bool(begun[1]),
    )
