"""How far bfloat16 takes training from float32, beside how far float32 is from itself when sums take another order.

    python -m benchmarks.drift --folder /tmp/drift [--steps 100] [--config configs/glyphs_c2am.py]
        [--override KEY=VALUE ...]

Three runs of train.py from the same start, with the same images and draws in every step: float32 on one device, the
same on eight virtual devices of the CPU (each sums its own images, so only rounding differs), bfloat16 on one device.
A batch must divide by eight. For each quantity of the log one JSON line tells the median and the largest difference
from the first run, relative to it, over spans of steps; the last line compares means over the last fifth of the steps.
Finished runs are kept, and one that was cut off resumes.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2am_jax.config import parse_overrides
from c2am_jax.errors import guarded

DEVICES = 8
REFERENCE, REORDERED, BFLOAT16 = "float32", "float32_other_order", "bfloat16"
QUANTITIES = ("loss", "loss/cls", "loss/box", "loss/mask", "grad_norm")
SPANS = (0, 0.1, 0.5, 1)  # as shares of the steps


def train(workdir: Path, options: argparse.Namespace, dtype: str, devices: int) -> None:
    """One run with every step in its log; its output goes to ``WORKDIR.log``. A run that failed lacks steps."""
    settings = {
        "train.steps": str(options.steps),
        "train.log_every": "1",
        "train.eval_every": "0",
        "train.checkpoint_every": str(options.steps),
        "train.compute_dtype": dtype,
        "data.dir": str(options.folder / "data"),
        **parse_overrides(options.override),
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    line = [sys.executable, "train.py", f"--config={options.config}", f"--workdir={workdir}", *flags]
    with workdir.with_suffix(".log").open("w") as log:
        subprocess.run(line, env=environment, stdout=log, stderr=log, check=False)


def read(workdir: Path, steps: int) -> dict[str, np.ndarray] | None:
    """The quantities of each step; None while a step is missing."""
    file = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    logged = [line for line in lines if "loss" in line]
    if [line["step"] for line in logged] != list(range(1, steps + 1)):
        return None
    return {name: np.array([line[name] for line in logged]) for name in QUANTITIES}


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Median and largest relative difference of each quantity, by "first-last" step of each span."""
    told: dict[str, dict[str, list[float]]] = {}
    for name, truth in expected.items():
        apart = np.abs(found[name] - truth) / np.maximum(np.abs(truth), 1e-12)
        bounds = [round(share * len(truth)) for share in SPANS]
        told[name] = {
            f"{first + 1}-{last}": [float(f"{value:.1e}") for value in (np.median(part), part.max())]
            for first, last in zip(bounds, bounds[1:], strict=False)
            if (part := apart[first:last]).size
        }
    return told


def at_the_end(values: np.ndarray) -> float:
    """Mean over the last fifth of the steps."""
    return round(float(values[-max(len(values) // 5, 1) :].mean()), 4)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--config", default="configs/glyphs_c2am.py")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="of all three runs")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    planned = {REFERENCE: ("float32", 1), REORDERED: ("float32", DEVICES), BFLOAT16: ("bfloat16", 1)}
    runs = {}
    for name, (dtype, devices) in planned.items():
        workdir = options.folder / name
        if read(workdir, options.steps) is None:
            train(workdir, options, dtype, devices)
        found = read(workdir, options.steps)
        if found is None:
            print(f"{workdir}/metrics.jsonl does not have {options.steps} steps, see {workdir}.log", file=sys.stderr)
            return 1
        runs[name] = found
    for name in (REORDERED, BFLOAT16):
        for quantity, spans in differences(runs[name], runs[REFERENCE]).items():
            print(json.dumps({"run": name, "quantity": quantity, "relative_difference_median_worst": spans}))
    ends = {name: {run: at_the_end(values[name]) for run, values in runs.items()} for name in QUANTITIES}
    line = {"benchmark": "drift", "steps": options.steps, "config": options.config, "means_at_the_end": ends}
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
