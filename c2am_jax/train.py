"""Train a detector.

c2am-train --config NAME_OR_FILE [--workdir DIR] [--config.KEY=VALUE ...]
python train.py --config configs/NAME.py [--workdir DIR] [--config.KEY=VALUE ...]     (in a clone)
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from c2am_jax import command_line
from c2am_jax.errors import UserError
from c2am_jax.files import write_output
from c2am_jax.storage import check_output

_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Compile the training step and report its memory, FLOPs, estimated time, collectives: JSON on stdout, a summary on "
    "stderr.",
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "--dry_run for devices that are not there: v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4, h100:8, a100:8 and other sizes.",
)
_SLICES = flags.DEFINE_integer("slices", 1, "--topology: so many of these, as slices of one run.", lower_bound=1)
_PROGRAM = flags.DEFINE_enum(
    "program", "train", ["train", "predict"], "--dry_run of the training step, or of prediction, which eval.py runs."
)
_HLO = flags.DEFINE_string("hlo", None, "--dry_run: where to write the optimised program's text too.")
_PROFILE = flags.DEFINE_integer("profile", 0, "Trace that many training steps into WORKDIR/profile.", lower_bound=0)


def main(_) -> None:
    """Train, evaluate, print the tables."""
    config = command_line.given_config()
    from c2am_jax.config import parse  # after the flags: importing JAX and TensorFlow takes seconds

    command_line.start_distributed()
    if _DRY_RUN.value:
        return _dry_run(config)
    if _TOPOLOGY.value or _HLO.value or _PROGRAM.value != "train" or _SLICES.value > 1:
        raise UserError("--topology, --slices, --program and --hlo go with --dry_run")
    experiment = parse(config, show=print)
    command_line.check_environment()
    from c2am_jax.training.loop import train

    workdir = command_line.WORKDIR.value or Path("runs") / experiment.name
    train(experiment, workdir, profile=_PROFILE.value, show=print)


def _dry_run(config: Any) -> None:
    """Compile a program and print what its compiler tells."""
    from c2am_jax.ahead.report import summary
    from c2am_jax.ahead.topology import topology_devices
    from c2am_jax.config import parse
    from c2am_jax.mesh import data_mesh
    from c2am_jax.training.program import describe

    if _HLO.value:
        check_output("--hlo", _HLO.value)
    if _TOPOLOGY.value:
        devices = topology_devices(_TOPOLOGY.value, _SLICES.value)
    elif _SLICES.value > 1:
        raise UserError("--slices goes with --topology")
    else:
        devices = None
        command_line.check_environment()
    experiment = parse(config)
    found = describe(experiment, data_mesh(devices), _PROGRAM.value)
    print(json.dumps(found.numbers, indent=2), flush=True)
    print(summary(found.numbers), file=sys.stderr)
    if _HLO.value:
        write_output(_HLO.value, found.text)


def run() -> None:
    """The command."""
    command_line.run(main, __doc__ or "")


if __name__ == "__main__":
    run()
