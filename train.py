"""Train a detector: python train.py --config configs/NAME.py [--workdir DIR] [--config.KEY=VALUE ...]."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from c2am_jax import command_line

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs; default runs/NAME.")
flags.mark_flag_as_required("config")


def main(_) -> None:
    """Train, evaluate, print the tables."""
    from c2am_jax.training.loop import train  # after the flags: importing JAX and TensorFlow takes seconds

    config = _CONFIG.value
    train(config, _WORKDIR.value or Path("runs") / config.name)


if __name__ == "__main__":
    command_line.run(main)
