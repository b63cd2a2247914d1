"""What a compiled training step holds, told before any data is there: parameters, FLOPs, memory, collectives."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from c2am_jax.experiment import Experiment
from c2am_jax.mesh import batch_sharding, replicated
from c2am_jax.structures import Batch
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state
from c2am_jax.training.step import configured_step

_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_COLLECTIVE = re.compile(rf"=\s*(.+?)\s({_KINDS})(?:-start)?\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY\s+)?%?([\w.\-]+)\s*(?:\([^{]*)?\{\s*$")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|branch_computations|true_computation|false_computation)=\{?([^,}]*(?:,\s*%[^,}]*)*)"
)
MASK_SIDE = 112  # stored masks, `data.box_masks`


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program: its kind, the bytes of its result, whether it runs inside a loop."""

    kind: str
    bytes: int
    in_loop: bool


def collectives(hlo: str) -> list[Collective]:
    """The collectives of an optimised HLO module's text."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in hlo.splitlines():
        found = _COMPUTATION.match(line)
        if found and not line.startswith(" "):
            name = found[1]
            bodies[name] = []
        elif name is not None:
            bodies[name].append(line)
    looped = set()
    waiting = [m.strip().lstrip("%") for lines in bodies.values() for line in lines for m in _loops(line)]
    while waiting:
        current = waiting.pop()
        if current in looped or current not in bodies:
            continue
        looped.add(current)
        waiting += [
            c.strip().lstrip("%") for line in bodies[current] for m in _CALLED.findall(line) for c in m.split(",")
        ]
    return [
        Collective(found[2], _bytes(found[1]), name in looped)
        for name, lines in bodies.items()
        for line in lines
        if (found := _COLLECTIVE.search(line))
    ]


def _loops(line: str) -> list[str]:
    return re.findall(r"(?:body|condition)=%?([\w.\-]+)", line) if " while(" in line else []


def _bytes(shapes: str) -> int:
    def width(kind):
        return 1 if kind == "pred" else int(re.sub(r"\D", "", kind)[:2] or 8) // 8

    return sum(width(kind) * math.prod(int(d) for d in dims.split(",") if d) for kind, dims in _SHAPE.findall(shapes))


def abstract_batch(experiment: Experiment, mesh: Mesh) -> Batch:
    """Shapes and placement of a global batch."""
    images, canvas = experiment.train.batch_size, experiment.data.canvas
    most, sharding = experiment.data.max_instances, batch_sharding(mesh)

    def shape(dtype, *dims):
        return jax.ShapeDtypeStruct((images, *dims), dtype, sharding=sharding)

    return Batch(
        image=shape(jnp.uint8, canvas, canvas, 3),
        source_hw=shape(jnp.int32, 2),
        target_hw=shape(jnp.int32, 2),
        flip=shape(jnp.bool_),
        boxes=shape(jnp.float32, most, 4),
        labels=shape(jnp.int32, most),
        masks=shape(jnp.uint8, most, MASK_SIDE, MASK_SIDE // 8),
        valid=shape(jnp.bool_, most),
        image_id=shape(jnp.int32),
    )


def compile_step(experiment: Experiment, mesh: Mesh, bucket: tuple[int, int]) -> tuple[Any, int]:
    """The compiled training step of `experiment` for one bucket, and the number of parameters that train."""
    schedule = experiment.train
    detector, loss_state = build_detector(experiment)
    optimizer = make_optimizer(schedule, Schedule(schedule, 1000).rate)
    step = configured_step(experiment, optimizer, mesh)
    state = jax.eval_shape(lambda: init_state(detector, loss_state, optimizer))
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated(mesh)), state)
    count = sum(int(np.prod(value.shape)) for value in detector.params.values())
    return step.lower(state, abstract_batch(experiment, mesh), bucket).compile(), count


def describe(experiment: Experiment, mesh: Mesh) -> dict[str, Any]:
    """Numbers of the compiled step for the largest bucket.

    Returns:
      "devices", "bucket", "images_per_device", "parameters" that train, "gflops_per_image" by the compiler's count,
      "memory_gib" of each device by its own analysis (arguments that stay, and the most that temporaries take at
      once), and "collectives": per kind how many, their bytes and how many of them run inside a loop.
    """
    bucket = max(experiment.data.buckets, key=math.prod)
    compiled, parameters = compile_step(experiment, mesh, bucket)
    memory = compiled.memory_analysis()
    kinds: dict[str, dict[str, int]] = {}
    for found in collectives(compiled.as_text()):
        kind = kinds.setdefault(found.kind, {"count": 0, "bytes": 0, "in_loop": 0})
        kind["count"] += 1
        kind["bytes"] += found.bytes
        kind["in_loop"] += found.in_loop
    images = experiment.train.batch_size // mesh.size

    def gib(size):
        return round(size / 2**30, 3)

    return {
        "devices": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
        "bucket": list(bucket),
        "images_per_device": images,
        "parameters": parameters,
        "gflops_per_image": round(compiled.cost_analysis().get("flops", float("nan")) / images / 1e9, 3),
        "memory_gib": {
            "arguments": gib(memory.argument_size_in_bytes),
            "temporaries": gib(memory.temp_size_in_bytes),
            "total": gib(
                memory.argument_size_in_bytes
                + memory.temp_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
            ),
        },
        "collectives": kinds,
    }
