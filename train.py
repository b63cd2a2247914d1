"""Train a detector: python train.py --config configs/NAME.py [--workdir DIR] [--config.KEY=VALUE ...]."""

import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from c2am_jax import command_line

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs; default runs/NAME.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Compile the training step for the devices here and print its size, FLOPs, memory, collectives."
)
_PROFILE = flags.DEFINE_integer("profile", 0, "Trace that many training steps into WORKDIR/profile.", lower_bound=0)
flags.mark_flag_as_required("config")


def main(_) -> None:
    """Train, evaluate, print the tables."""
    command_line.start_distributed()
    config = _CONFIG.value
    if _DRY_RUN.value:
        from c2am_jax.training.program import describe
        from c2am_jax.training.step import data_mesh

        print(json.dumps(describe(config, data_mesh()), indent=2))
        return
    from c2am_jax.training.loop import train  # after the flags: importing JAX and TensorFlow takes seconds

    train(config, _WORKDIR.value or Path("runs") / config.name, profile=_PROFILE.value)


if __name__ == "__main__":
    command_line.run(main)
