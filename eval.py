"""Evaluate a checkpoint or score a results file: python eval.py --help."""

from c2am_jax.eval import run

if __name__ == "__main__":
    run()
