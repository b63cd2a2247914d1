"""Train a detector: python train.py --config configs/NAME.py [--workdir DIR] [--config.KEY=VALUE ...]."""

from c2am_jax.train import run

if __name__ == "__main__":
    run()
