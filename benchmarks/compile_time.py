"""Seconds until the first step is done, with an empty and with a full compilation cache; one JSON line.

    python -m benchmarks.compile_time --config configs/maskrcnn_r50_c2am.py --size 512 512

Each measurement is a fresh process with a cache folder of its own: the first fills it, the second reads it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from benchmarks.common import machine, random_batch
from c2am_jax.config import load_experiment
from c2am_jax.mesh import batch_sharding, data_mesh
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.restore import first_state
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.step import configured_step


def first_step(options: argparse.Namespace) -> dict[str, float]:
    """Trace, compile and run one step in this process."""
    experiment = load_experiment(options.config)
    hw, mesh = tuple(options.size), data_mesh()
    start = time.perf_counter()
    state = first_state(experiment, mesh)
    built = time.perf_counter()
    optimizer = make_optimizer(experiment.train, Schedule(experiment.train, 1000).rate)
    step = configured_step(experiment, optimizer, mesh)
    batch = jax.device_put(random_batch(1, hw, max(hw), experiment.model.num_classes), batch_sharding(mesh))
    begun = time.perf_counter()
    lowered = step.lower(state, batch, hw)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    _, metrics = compiled(state, batch, step.seed)
    assert np.isfinite(float(metrics["loss"]))
    return {
        "build_s": round(built - start, 1),
        "trace_s": round(traced - begun, 1),
        "compile_s": round(ready - traced, 1),
        "first_step_s": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/maskrcnn_r50_c2am.py")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    if options.here:
        print(json.dumps(first_step(options)))
        return
    command = [sys.executable, "-m", "benchmarks.compile_time", "--here", "--config", options.config]
    command += ["--size", *map(str, options.size)]
    line = {"benchmark": "compile_time", "config": options.config, "size": options.size}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for name in ("empty_cache", "full_cache"):
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            line[name] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(line | machine()))


if __name__ == "__main__":
    main()
