"""Plan a training run on slices of TPU pods, on paper: the compiler's estimate of a step and published numbers.

    python -m benchmarks.pods [v5e:4x4 v5e:8x8 v5e:16x16] [--images 1 2] [--json]
    python -m benchmarks.pods v5p:4x4x4 --topologies rows.jsonl --row "maskrcnn_r50_c2am, bfloat16, 2"

The step's time is that of a row of benchmarks.topologies, a lower bound; without --topologies the one of
docs/scaling.md. Nothing is compiled and no TPU is asked. With other images per chip than the row's, the step's time is
taken in proportion. docs/scaling.md has the table and says how to read it; tools/tables.py writes it there.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import topologies
from c2am_jax.ahead.topology import kind_and_sides
from c2am_jax.config import load_experiment
from c2am_jax.data.published import PUBLISHED
from c2am_jax.errors import UserError, guarded
from c2am_jax.experiment import Experiment
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, init_state

SLICES = ("v5e:4x4", "v5e:8x8", "v5e:16x16")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a kind of TPU has beside its chip.

    Attributes:
      link_gb_s: bandwidth between two neighbouring chips, one way, GB/s; a chip has two links a dimension.
      wraps: a side of a slice whose length is a multiple of this one is closed to a ring.
      vcpus: of a host, a virtual machine with `CHIPS_PER_HOST` chips; None: not looked up.
    """

    link_gb_s: float
    wraps: int
    vcpus: int | None


# docs.cloud.google.com/tpu/docs: bandwidth between chips, per chip and both ways: v5e 400, v5p 1200, v6e 800 GB/s, so
# 50, 100 and 100 per link and way; vCPUs of ct5lp-hightpu-4t and of a v5p host. jax-ml.github.io/scaling-book/tpus:
# links of v4, which sides are rings, half a microsecond to one per hop.
KINDS = {
    "v4": Kind(45, 4, None),
    "v5e": Kind(50, 16, 112),
    "v5p": Kind(100, 4, 208),
    "v6e": Kind(100, 16, None),
}
CHIPS_PER_HOST = 4
HOP_S = 1e-6
IMAGES_PER_CORE = 593 / 2  # benchmarks.input_pipeline, host stream on two cores: docs/input_pipeline.md
SAVE_GB_S = 0.2  # one host writes all; two busy cores and a local disk here took 2.1 and 2.4 s for 0.40 GB

# Mask R-CNN R50 on COCO with SGD and a rate of 0.02 for 16 images, linear: median epochs to the target by MLPerf's
# reference runs, mlcommons/logging, rcp_checker/training_2.1.0/rcps_maskrcnn.json. Above `LINEAR_TO` its rate is lower.
REFERENCE_EPOCHS = {8: 13, 48: 14, 64: 14, 96: 14, 128: 14, 256: 17, 272: 17}
LINEAR_TO = 128


@dataclasses.dataclass(frozen=True)
class Step:
    """What the compiler says of one training step.

    Attributes:
      row: its name in the table of benchmarks.topologies.
      config: of the detector.
      chip: kind of chip, a key of `KINDS`.
      images: per chip.
      ms: estimated time without exchange between chips; a lower bound.
      all_reduces, all_reduce_bytes: how many there are, and what they sum in all, per chip.
    """

    row: str
    config: str
    chip: str
    images: int
    ms: float
    all_reduces: int
    all_reduce_bytes: float


ESTIMATED = Step("maskrcnn_r50_c2am, bfloat16, 2", "maskrcnn_r50_c2am", "v5e", 2, 70.0, 5, 201e6)  # docs/scaling.md


def step_of(row: Mapping[str, Any]) -> Step:
    """The step of a row of benchmarks.topologies. Raises UserError for one that failed or is no training step."""
    numbers = row.get("numbers", {})
    if numbers.get("program") != "train" or not numbers["estimate"]:
        raise UserError(f"{row['row']}: no estimate of a training step: {row.get('error', 'another program')}")
    given = dict(text.lstrip("-").split("=", 1) for text in row["command"] if "=" in text)
    sums = numbers["collectives"]["all-reduce"]
    return Step(
        row=row["row"],
        config=given["config"],
        chip=kind_and_sides(given["topology"])[0],
        images=numbers["images_per_device"],
        ms=numbers["estimate"]["ms"],
        all_reduces=sums["count"],
        all_reduce_bytes=sums["bytes"],
    )


def all_reduce_ms(kind: Kind, sides: Sequence[int], size: float, count: int = 1) -> float:
    """Least time to sum arrays of `size` bytes in all over the chips of a slice, in `count` all-reduces.

    Reduce-scatter, then all-gather, each dimension by dimension; the array is cut into as many parts as there are
    dimensions, and each part begins with another one, so all links work at once. A chip sends, and receives,
    2 size (1 - 1/chips) bytes. Where all sides are rings they come over both links of each dimension; else the chips
    at the ends have one, and set the pace:

        time = 2 size (1 - 1/chips) / (links bandwidth) + 2 count hops hop time,    hops = sum of (side - 1)

    with links = dimensions x (2 for a torus, 1 for a mesh). On a torus half the hops would do. A bound by bandwidth:
    that the compiler's program reaches it is not known.
    """
    sides = [side for side in sides if side > 1]
    chips, hops = math.prod(sides), sum(side - 1 for side in sides)
    if chips == 1:
        return 0.0
    links = len(sides) * (2 if all(side % kind.wraps == 0 for side in sides) else 1)
    seconds = 2 * size * (1 - 1 / chips) / (links * kind.link_gb_s * 1e9) + 2 * count * hops * HOP_S
    return 1e3 * seconds


def state_bytes(experiment: Experiment) -> int:
    """Bytes of a checkpoint's arrays: parameters, momentum, frozen arrays, the loss's state."""
    detector, loss_state = build_detector(experiment)
    optimizer = make_optimizer(experiment.train, Schedule(experiment.train, 1000).rate)
    state = jax.eval_shape(lambda: init_state(detector, loss_state, optimizer))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def epoch_images(experiment: Experiment) -> int:
    """Images of an epoch, by the published count. Raises UserError where sampling or the data make another number."""
    data = experiment.data
    images = PUBLISHED.get(f"{data.name}_train", {}).get("images")
    if images is None or data.sampler != "random":
        raise UserError(
            f"config.data.name {data.name}, config.data.sampler {data.sampler}: the images of an epoch follow from the "
            "annotations: give --epoch, as python -m c2am_jax.data.stats tells it"
        )
    return images


def linear_rate(batch: int) -> str:
    """Whether the linear rate is known to do at this batch size, by `REFERENCE_EPOCHS`."""
    if batch <= LINEAR_TO:
        return "known"
    larger = [size for size in REFERENCE_EPOCHS if size >= batch]
    if not larger:
        return "not known"
    return f"no: {REFERENCE_EPOCHS[min(larger)]} epochs for {REFERENCE_EPOCHS[LINEAR_TO]}"


def plan(
    step: Step,
    topology: str,
    images: int,
    experiment: Experiment,
    *,
    epoch: int,
    state: int,
    save_gb_s: float = SAVE_GB_S,
) -> dict[str, Any]:
    """A run on one slice.

    Args:
      step: the compiler's estimate.
      topology: the slice, as --topology has it; of the estimate's kind.
      images: per chip.
      experiment: its length, rate and how often it saves.
      epoch: images in an epoch.
      state: bytes of a checkpoint.
      save_gb_s: at which one host writes them.

    Returns:
      Times in the unit of their key. "hours" and "chip_hours" are without any overlap of step and all-reduce,
      "hours_overlapped" with the shorter of both hidden behind the longer. "input_cores" are those that a host's chips
      keep busy, of "vcpus".

    Raises:
      UserError: no such slice, or one of another kind of chip.
    """
    chip, sides = kind_and_sides(topology)
    if chip != step.chip:
        raise UserError(f"{topology}: the row {step.row!r} is of a {step.chip}; give the row of a {chip}")
    kind, chips = KINDS[chip], math.prod(sides)
    train = dataclasses.replace(experiment.train, batch_size=images * chips)
    schedule = Schedule(train, -(-epoch // train.batch_size))
    step_ms = step.ms * images / step.images
    sum_ms = all_reduce_ms(kind, sides, step.all_reduce_bytes, step.all_reduces)
    rate = train.batch_size / (step_ms + sum_ms) * 1e3
    hours = schedule.length * (step_ms + sum_ms) / 3.6e6
    return {
        "slice": f"{chip}-{chips}" if len(sides) == 2 else topology,  # v4-32 and v5p-32 have 16 chips
        "topology": topology,
        "chips": chips,
        "images_per_chip": images,
        "batch": train.batch_size,
        "learning_rate": schedule.peak,
        "linear_rate": linear_rate(train.batch_size),
        "step_ms": step_ms,
        "all_reduce_ms": sum_ms,
        "all_reduce_share": sum_ms / (step_ms + sum_ms),
        "images_per_s": rate,
        "input_cores": rate / chips * min(chips, CHIPS_PER_HOST) / IMAGES_PER_CORE,
        "vcpus": kind.vcpus,
        "state_mb": state / 1e6,
        "save_s": state / save_gb_s / 1e9,
        "save_every_s": train.checkpoint_every * (step_ms + sum_ms) / 1e3,
        "steps": schedule.length,
        "hours": hours,
        "hours_overlapped": schedule.length * max(step_ms, sum_ms) / 3.6e6,
        "chip_hours": hours * chips,
    }


HEADER = (
    "slice",
    "images per chip",
    "batch, learning rate",
    "step, ms",
    "all-reduce, ms",
    "images/s",
    "cores for input, of a host",
    "steps",
    "hours (with overlap)",
    "chip-hours",
    "linear rate",
)


def table(plans: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *map(_cells, plans)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(plan: Mapping[str, Any]) -> list[str]:
    cores = f"{plan['input_cores']:.2f}" + (f" of {plan['vcpus']}" if plan["vcpus"] else "")
    return [
        plan["slice"],
        str(plan["images_per_chip"]),
        f"{plan['batch']}, {plan['learning_rate']:g}",
        f"{plan['step_ms']:.0f}",
        f"{plan['all_reduce_ms']:.1f} ({100 * plan['all_reduce_share']:.0f} %)",
        f"{plan['images_per_s']:.0f}",
        cores,
        f"{plan['steps']:,}",
        f"{plan['hours']:.2f} ({plan['hours_overlapped']:.2f})",
        f"{plan['chip_hours']:.0f}",
        plan["linear_rate"],
    ]


def plans(
    step: Step = ESTIMATED,
    slices: Sequence[str] = SLICES,
    images: Sequence[int] = (1, 2),
    *,
    epoch: int = 0,
    save_gb_s: float = SAVE_GB_S,
) -> list[dict[str, Any]]:
    """`plan` of each slice with each number of images per chip; `epoch` 0: `epoch_images`."""
    experiment = load_experiment(step.config)
    epoch, state = epoch or epoch_images(experiment), state_bytes(experiment)
    return [
        plan(step, topology, count, experiment, epoch=epoch, state=state, save_gb_s=save_gb_s)
        for topology in slices
        for count in images
    ]


@guarded
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("slices", nargs="*", default=SLICES, metavar="TOPOLOGY", help=f"default: {' '.join(SLICES)}")
    parser.add_argument("--topologies", type=Path, metavar="ROWS", help="what benchmarks.topologies --out wrote")
    parser.add_argument("--row", default=ESTIMATED.row, help="its name there; default: %(default)s")
    parser.add_argument("--images", type=int, nargs="+", default=(1, 2), help="per chip; default: 1 2")
    parser.add_argument("--epoch", type=int, default=0, metavar="IMAGES", help="default: the published count")
    parser.add_argument("--save_gb_s", type=float, default=SAVE_GB_S, help="at which a host writes checkpoints")
    parser.add_argument("--json", action="store_true", help="a line for each slice and number of images")
    options = parser.parse_args(argv)
    step = ESTIMATED
    if options.topologies:
        rows = topologies.read(options.topologies)
        if options.row not in rows:
            raise UserError(f"{options.topologies}: no row {options.row!r}; there are: {', '.join(rows) or 'none'}")
        step = step_of(rows[options.row])
    elif options.row != step.row:
        raise UserError(f"--row {options.row!r} needs --topologies, the file that has it")
    found = plans(step, options.slices, options.images, epoch=options.epoch, save_gb_s=options.save_gb_s)
    if options.json:
        for line in found:
            print(json.dumps(line))
    else:
        print(table(found), end="")


if __name__ == "__main__":
    sys.exit(main())
