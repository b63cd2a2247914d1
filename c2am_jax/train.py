"""Train a detector.

c2am-train --config NAME_OR_FILE [--workdir DIR] [--config.KEY=VALUE ...]
python train.py --config configs/NAME.py [--workdir DIR] [--config.KEY=VALUE ...]     (in a clone)
"""

import json
from pathlib import Path

from absl import flags

from c2am_jax import command_line

_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Compile the training step for the devices here and print its size, FLOPs, memory, collectives."
)
_PROFILE = flags.DEFINE_integer("profile", 0, "Trace that many training steps into WORKDIR/profile.", lower_bound=0)


def main(_) -> None:
    """Train, evaluate, print the tables."""
    config = command_line.given_config()
    from c2am_jax.config import parse  # after the flags: importing JAX and TensorFlow takes seconds

    command_line.start_distributed()
    experiment = parse(config, show=print)
    command_line.check_environment()
    if _DRY_RUN.value:
        from c2am_jax.mesh import data_mesh
        from c2am_jax.training.program import describe

        print(json.dumps(describe(experiment, data_mesh()), indent=2))
        return
    from c2am_jax.training.loop import train

    workdir = command_line.WORKDIR.value or Path("runs") / experiment.name
    train(experiment, workdir, profile=_PROFILE.value, show=print)


def run() -> None:
    """The command."""
    command_line.run(main, __doc__ or "")


if __name__ == "__main__":
    run()
