"""FLOPs of a module: its products of matrices and its convolutions, loops multiplied.

Two per multiplication with its addition, as XLA's own analysis counts; that one counts a loop's body once. Products
with the zeros that padding and dilation bring are left out, so the number is that of the mathematics, however a
compiler writes it down (that of TPUs makes convolutions of products). Everything else, additions, exponentials,
comparisons, is not counted.
"""

import collections
import math
import re

import numpy as np

from c2am_jax.ahead.executions import executions
from c2am_jax.ahead.hlo_text import Computation, Instruction, Module, Shape


def flops_by_part(module: Module) -> dict[str, float]:
    """Of one run of the program on one device, by part of the detector, the most first."""
    found: dict[str, float] = collections.defaultdict(float)
    for e in executions(module, instruction_flops, inside_fusions=True):
        if work := instruction_flops(e.computation, e.instruction):
            found[e.part] += e.times * work
    return dict(sorted(found.items(), key=lambda part: -part[1]))


def instruction_flops(computation: Computation, instruction: Instruction) -> float:
    """Of one product or convolution; 0 of everything else."""
    if instruction.opcode == "dot":
        return _product(computation, instruction, instruction.attribute("lhs_contracting_dims") or "")
    if instruction.opcode == "convolution":
        return _convolution(*_sides(computation, instruction), instruction)
    if instruction.opcode == "custom-call":
        return _library(computation, instruction)
    return 0.0


def _product(computation: Computation, instruction: Instruction, contracted: str) -> float:
    """Of two matrices; `contracted` has the numbers of the left one's dimensions that are summed over."""
    left = _shape_of(computation, instruction, 0)
    if left is None:
        return 0.0
    sides = [left.dims[int(d)] for d in re.findall(r"\d+", contracted)]
    return 2.0 * math.prod(instruction.shapes[0].dims) * math.prod(sides)


def _library(computation: Computation, instruction: Instruction) -> float:
    """What a compiler for GPUs hands to cuBLAS and cuDNN."""
    target = instruction.attribute("custom_call_target") or ""
    if "dim_labels=" in instruction.attributes:
        left, right, result = _sides(computation, instruction)
        if "BackwardInput" in target:
            left, result = result, left
        elif "BackwardFilter" in target:
            right, result = result, right
        return _convolution(left, right, result, instruction)
    contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    return _product(computation, instruction, contracted[1]) if contracted else 0.0


def _sides(computation: Computation, instruction: Instruction) -> tuple[Shape | None, Shape | None, Shape | None]:
    left, right = (_shape_of(computation, instruction, number) for number in (0, 1))
    return left, right, instruction.shapes[0]


def _convolution(left: Shape | None, right: Shape | None, result: Shape | None, instruction: Instruction) -> float:
    """Two for every pair of an output and an input that a kernel's element joins."""
    labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels") or "")
    if not labels or left is None or right is None or result is None:
        return 0.0
    source, kernel, target = labels.groups()
    window = dict(re.findall(r"(\w+)=(\S+)", instruction.attribute("window") or ""))
    spatial = sorted(label for label in source if label.isdigit())

    def of(name: str, number: int, default: int) -> int:
        values = window.get(name, "").split("x") if name in window else []
        return int(values[number]) if values else default

    pairs = 1.0
    for number, label in enumerate(spatial):
        pads = window["pad"].split("x")[number].split("_") if "pad" in window else (0, 0)
        pairs *= joined(
            size=left.dims[source.index(label)],
            kernel=right.dims[kernel.index(label)],
            outputs=result.dims[target.index(label)],
            stride=of("stride", number, 1),
            low=int(pads[0]),
            base_dilation=of("lhs_dilate", number, 1),
            kernel_dilation=of("rhs_dilate", number, 1),
        )
    channels = left.dims[source.index("f")] // int(instruction.attribute("feature_group_count") or 1)
    images = left.dims[source.index("b")] // int(instruction.attribute("batch_group_count") or 1)
    return 2.0 * pairs * images * channels * result.dims[target.index("f")]


def joined(
    *, size: int, kernel: int, outputs: int, stride: int, low: int, base_dilation: int, kernel_dilation: int
) -> int:
    """Pairs of (output, kernel element) along one side that read an input and neither padding nor a hole."""
    place = np.arange(outputs)[:, None] * stride + np.arange(kernel)[None] * kernel_dilation - low
    return int(((place >= 0) & (place % base_dilation == 0) & (place < size * base_dilation)).sum())


def _shape_of(computation: Computation, instruction: Instruction, number: int) -> Shape | None:
    made = computation.operand(instruction, number)
    return made.shapes[0] if made is not None and made.shapes else None
