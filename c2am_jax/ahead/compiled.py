"""A lowered program compiled, and everything that its compiler tells about it, as one dictionary."""

import dataclasses
import time
from typing import Any

import jax

from c2am_jax.ahead import buffers, communication, hlo_text, stablehlo, time_estimate, traffic
from c2am_jax.ahead.executions import executions
from c2am_jax.ahead.hlo_text import Module
from c2am_jax.ahead.topology import Chip, chip_of
from c2am_jax.ahead.work import flops_by_part, instruction_flops
from c2am_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program: its optimised text, and the numbers told about it."""

    text: str
    numbers: dict[str, Any]


def compile_and_describe(lowered: jax.stages.Lowered, device_kind: str, images: int) -> Compiled:
    """Compile a program and read its text.

    Args:
      lowered: for devices that are there or not.
      device_kind: of these devices.
      images: that one device works on in one run.

    Returns:
      The text, and "compile_seconds", "program_text", "memory_gib", "gflops_per_image", "estimate" (None where the
      compiler gives no cycles), "traffic" (only there), "no_estimate", "buffers", "collectives", "watched";
      docs/scaling.md says what each is.

    Raises:
      UserError: the compiler finds that the program does not fit in the device's memory.
    """
    chip, before = chip_of(device_kind), stablehlo.measure(lowered.as_text())
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the program does not fit in the memory of a {device_kind}: {str(error)[:300]}; take fewer images per "
            "device (config.train.batch_size, config.eval.batch_size), config.train.compute_dtype=bfloat16 or "
            "config.model.backbone.remat=True"
        ) from None
    seconds = time.perf_counter() - start
    text = compiled.as_text() or ""
    module = hlo_text.parse(text)
    by_part = flops_by_part(module)
    work = sum(by_part.values())
    estimate = _estimate(module, chip, work, images)
    executed = list(executions(module, instruction_flops, inside_fusions=False))
    numbers: dict[str, Any] = {
        "compile_seconds": round(seconds, 1),
        "program_text": {
            "stablehlo_mb": round(before.size / 1e6, 2),
            "constants_mb": round(before.constants / 1e6, 2),
            "largest_constants": [{"type": kind, "mb": round(size / 1e6, 2)} for kind, size in before.largest],
        },
        "memory_gib": _memory(compiled.memory_analysis(), chip),
        "gflops_per_image": round(work / images / 1e9, 6),
        "gflops_per_image_by_part": {part: round(flops / images / 1e9, 6) for part, flops in by_part.items()},
        "estimate": estimate,
        "traffic": traffic.by_part(executed) if estimate is None else None,
        "no_estimate": time_estimate.uncounted(module, executed),
        "buffers": _buffers(module),
        "collectives": communication.by_kind(communication.collectives(module)),
        "watched": watched(module),
    }
    return Compiled(text, numbers)


def _memory(analysis: Any, chip: Chip | None) -> dict[str, Any]:
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program_code": analysis.generated_code_size_in_bytes,
    }
    total = sum(sizes.values()) - 2 * sizes["aliased"]
    found: dict[str, Any] = {name: round(size / GIB, 3) for name, size in (sizes | {"total": total}).items()}
    if chip is not None:
        found |= {"of_device": chip.memory_gib, "fits": total <= chip.memory_gib * GIB}
    return found


def _estimate(module: Module, chip: Chip | None, work: float, images: int) -> dict[str, Any] | None:
    found = time_estimate.estimate(module)
    clock = None if chip is None else chip.clock_ghz
    if found is None or chip is None or clock is None:
        return None
    seconds = found.cycles / clock / 1e9

    def rows(cycles: dict[str, int]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "mcycles": round(number / 1e6, 3),
                "ms": round(number / clock / 1e6, 3),
                "share": round(number / found.cycles, 4),
            }
            for name, number in cycles.items()
        ]

    return {
        "mcycles": round(found.cycles / 1e6, 3),
        "clock_ghz": clock,
        "ms": round(seconds * 1e3, 3),
        "images_per_s_per_device": round(images / seconds, 2),
        "share_of_peak": round(work / seconds / chip.peak_tflops / 1e12, 4),
        "by_part": rows(found.by_part),
        "by_kind": rows(found.by_kind),
        "other": rows(found.other),
        "loops": found.loops,
    }


def _buffers(module: Module) -> dict[str, Any] | None:
    """The largest ones and those at the peak; None where the text's order is no schedule."""
    if not module.is_scheduled:
        return None
    found = buffers.buffers(module)
    peak = buffers.at_peak(found)
    return {
        "largest": [buffer.row() for buffer in buffers.largest(found)],
        "at_peak": [buffer.row() for buffer in peak[: buffers.LISTED]],
        "at_peak_gib": round(sum(buffer.size for buffer in peak) / GIB, 3),
    }


def watched(module: Module) -> dict[str, int]:
    """How many of the instructions there are, fusions looked into, that cost more than they look like.

    "float32_convolutions" and "float32_products": of which bfloat16 would be cheaper; "layout_copies": transpositions,
    and copies into another order of dimensions; "scatters", and "scatter_loops" that a compiler made of some.
    """
    names = ["float32_convolutions", "float32_products", "layout_copies", "scatters", "scatter_loops"]
    counts = dict.fromkeys(names, 0)
    for computation in module.computations.values():
        for instruction in computation.instructions.values():
            opcode, target = instruction.opcode, instruction.attribute("custom_call_target") or ""
            source = computation.operand(instruction, 0)
            shape, before = (i.shapes[0] if i is not None and i.shapes else None for i in (instruction, source))
            if (opcode == "convolution" or "$conv" in target) and before is not None and before.kind == "f32":
                counts["float32_convolutions"] += 1
            elif (opcode == "dot" or "cublas" in target) and before is not None and before.kind == "f32":
                counts["float32_products"] += 1
            elif opcode == "transpose" or (opcode == "copy" and shape and before and shape.order != before.order):
                counts["layout_copies"] += 1
            elif opcode == "scatter":
                counts["scatters"] += 1
            elif opcode == "while" and "scatter" in instruction.op_name.rpartition("/")[2]:
                counts["scatter_loops"] += 1
    return counts
