"""How often each instruction of a module runs: loops multiplied, one branch of a conditional."""

import dataclasses
import re
from collections.abc import Callable, Iterator

from c2am_jax.ahead.hlo_text import Computation, Instruction, Module
from c2am_jax.ahead.parts import OTHER, part_of

# What a loop without a number in the text counts as: the fixed point of NMS takes 4 to 10 iterations (`ops.nms`). A
# loop around another such loop counts once: further blocks of NMS are for images where the first leaves too few boxes.
ASSUMED_TRIPS, ASSUMED_OUTER_TRIPS = 8, 1
_KNOWN_TRIPS = re.compile(r'"?known_trip_count"?\s*[:=]\s*\{\s*"?n"?\s*[:=]\s*"?(\d+)')
_BRANCHES = ("branch_computations", "true_computation", "false_computation")
_RUN = {"call": ("to_apply", "calls"), "async-start": ("calls", "to_apply")}


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of the program.

    Attributes:
      instruction: the "while".
      trips: iterations each time that it runs.
      known: they follow from the text; else they are assumed.
    """

    instruction: Instruction
    trips: int
    known: bool


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction, and how often it runs in one run of the program.

    Attributes:
      instruction, computation: it and where it stands.
      times: how often it runs, loops multiplied.
      loops: those that it runs in, outermost first.
      part: of the detector; where its own path of scopes names none, that of what runs it (loop, fusion).
    """

    instruction: Instruction
    computation: Computation
    times: int
    loops: tuple[Loop, ...]
    part: str


def executions(
    module: Module, cost: Callable[[Computation, Instruction], float], *, inside_fusions: bool
) -> Iterator[Executed]:
    """Every instruction that runs.

    Args:
      module: the program.
      cost: of an instruction by itself, by which the branch that counts of a conditional is chosen: the most expensive.
      inside_fusions: what fusions are made of too; else a fusion is one instruction.
    """

    def run(name: str, times: int, loops: tuple[Loop, ...], part: str) -> Iterator[Executed]:
        computation = module.computations[name]
        for instruction in computation.instructions.values():
            own = part_of(instruction.op_name)
            own = part if own.startswith(OTHER) and not part.startswith(OTHER) else own
            yield Executed(instruction, computation, times, loops, own)
            if instruction.opcode == "while":
                loop = loop_of(module, computation, instruction)
                for body in instruction.called("body"):
                    yield from run(body, times * loop.trips, (*loops, loop), own)
            elif instruction.opcode == "conditional":
                branches = instruction.called(*_BRANCHES)
                yield from run(max(branches, key=weight), times, loops, own)
            else:
                for called in called_once(instruction):
                    yield from run(called, times, loops, own)

    def called_once(instruction: Instruction) -> list[str]:
        if instruction.opcode == "fusion":
            return instruction.called("calls") if inside_fusions else []
        return instruction.called(*_RUN.get(instruction.opcode, ("called_computations",)))

    def weight(name: str) -> float:
        return sum(e.times * cost(e.computation, e.instruction) for e in run(name, 1, (), OTHER))

    yield from run(module.entry, 1, (), OTHER)


def loop_of(module: Module, computation: Computation, instruction: Instruction) -> Loop:
    """The loop of a "while" and its number of iterations."""
    known = trip_count(module, computation, instruction)
    if known is not None:
        return Loop(instruction, known, True)
    inner = [
        (module.computations[name], i)
        for name in module.reached(instruction.called("body"))
        for i in module.computations[name].instructions.values()
        if i.opcode == "while"
    ]
    outer = any(trip_count(module, *place) is None for place in inner)
    return Loop(instruction, ASSUMED_OUTER_TRIPS if outer else ASSUMED_TRIPS, False)


def trip_count(module: Module, computation: Computation, instruction: Instruction) -> int | None:
    """Iterations of a "while" whose text tells them.

    Either the compiler wrote them down, or the condition is one comparison of a counter with a constant, and the
    counter's first value and its step are constants too (0 and 1 where they stand behind other instructions).
    """
    written = _KNOWN_TRIPS.search(instruction.attributes)
    if written:
        return int(written[1])
    (condition,), (body,) = instruction.called("condition"), instruction.called("body")
    bound = _bound(module, module.computations[condition])
    if bound is None:
        return None
    place, limit, inclusive = bound
    first = _first(module, computation, instruction, place)
    step = _step(module.computations[body], place)
    return max(-(-(limit - first + inclusive) // step), 0)


def _bound(module: Module, condition: Computation) -> tuple[int, int, int] | None:
    """(place of the counter in the loop's values, limit, 1 if the limit takes part) of ``counter < limit``."""
    compare, arguments = condition.root, [_source(condition, name) for name in condition.root.operands]
    if compare.opcode == "fusion":
        (name,) = compare.called("calls")
        fused = module.computations[name]
        compare, given = fused.root, arguments
        arguments = []
        for operand in compare.operands:
            source = _source(fused, operand)
            outside = source is not None and source.opcode == "parameter" and source.arguments.isdigit()
            arguments.append(given[int(source.arguments)] if source is not None and outside else source)
    direction = compare.attribute("direction")
    if compare.opcode != "compare" or len(arguments) != 2 or any(a is None for a in arguments):
        return None
    counter, limit = arguments if direction in ("LT", "LE") else reversed(arguments)
    if direction not in ("LT", "LE", "GT", "GE") or counter is None or counter.opcode != "get-tuple-element":
        return None
    value = _constant(limit)
    return None if value is None else (int(counter.attribute("index") or 0), value, int(direction in ("LE", "GE")))


def _source(computation: Computation, name: str) -> Instruction | None:
    """What makes a value, behind copies and bitcasts."""
    found = computation.instructions.get(name)
    while found is not None and found.opcode in ("copy", "bitcast", "convert") and found.operands:
        found = computation.instructions.get(found.operands[0])
    return found


def _constant(instruction: Instruction | None) -> int | None:
    if instruction is None or instruction.opcode != "constant" or not re.fullmatch(r"-?\d+", instruction.arguments):
        return None
    return int(instruction.arguments)


def _first(module: Module, computation: Computation, loop: Instruction, place: int) -> int:
    start = computation.operand(loop, 0)
    if start is None or start.opcode != "tuple" or place >= len(start.operands):
        return 0
    return _constant(_source(computation, start.operands[place])) or 0


def _step(body: Computation, place: int) -> int:
    if body.root.opcode != "tuple" or place >= len(body.root.operands):
        return 1
    following = _source(body, body.root.operands[place])
    if following is None or following.opcode != "add":
        return 1
    steps = [_constant(_source(body, name)) for name in following.operands]
    return next((step for step in steps if step), 1)
