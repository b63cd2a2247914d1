"""Everything that this project wants to know of a GPU, in one command: JSON lines and a summary in Markdown.

    python -m benchmarks.gpu --out gpu [--minutes 9] [--golden ../shared/reference/golden]

In this order: is JAX fit to train there (`benchmarks.gpu_check`); a training step of Mask R-CNN R50 with C2AM in
bfloat16 and in float32, in turns with torchvision's Mask R-CNN of the same size, classes and batch where torchvision is
installed; how the step's time divides among the detector's parts; prediction in turns; the golden comparison with the
PyTorch reference on the GPU. What no longer fits into the minutes is left out and said.
"""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEWEST_SECONDS = 30  # with less time left nothing is started
GOAL = 1 / 1.5  # of torchvision's time
GOLDEN = ("mask_rcnn_r50_c2am", "trajectory_fixed_mask_rcnn_r50_c2am", "cascade_mask_rcnn_r50")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A command of this repository that prints JSON lines: its title, its module and the arguments."""

    name: str
    module: str
    arguments: tuple[str, ...]


def measurements(
    size: Sequence[int], batch: int, steps: int, config: str, golden: Path | None, out: Path
) -> list[Measurement]:
    """What is run, the most important first."""
    shape = ("--config", config, "--size", *map(str, size), "--batch", str(batch), "--steps", str(steps))
    peer = ("--vs", "torch", "--peer_python", sys.executable) if importlib.util.find_spec("torchvision") else ()
    found = [Measurement("is JAX fit to train", "benchmarks.gpu_check", ("--size", *map(str, size)))]
    for dtype in ("bf16", "float32"):
        trained = (*shape, "--dtype", dtype)
        found.append(Measurement(f"training step, {dtype}", "benchmarks.train_step", (*trained, *peer)))
    found.append(
        Measurement(
            "training step by part, bf16",
            "benchmarks.train_step",
            (*shape, "--dtype", "bf16", "--parts", str(out / "trace")),
        )
    )
    found.append(Measurement("prediction, bf16", "benchmarks.predict", (*shape, "--dtype", "bf16", *peer)))
    if golden is not None:
        for kind in GOLDEN:
            rows = str(out / f"golden_{kind}.json")
            found.append(
                Measurement(f"golden {kind}", "c2am_jax.interop.golden", (str(golden / f"{kind}.npz"), "--json", rows))
            )
    return found


def run(one: Measurement, seconds: float) -> dict[str, Any]:
    """One record: name, command, exit status or None where time ended it, its JSON lines and the rest of its output."""
    command = [sys.executable, "-m", one.module, *one.arguments]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        status, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as ended:
        status, out, err = None, _text(ended.stdout), _text(ended.stderr)
    lines, rest = [], []
    for line in out.splitlines():
        if line.startswith("{"):
            lines.append(json.loads(line))
        else:
            rest.append(line)
    return {
        "name": one.name,
        "command": " ".join(["python", *command[1:]]),
        "status": status,
        "seconds": round(time.perf_counter() - start, 1),
        "lines": lines,
        "output": rest,
        "errors": [line for line in err.splitlines() if line.strip()][-15:],
    }


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def summary(records: Sequence[dict[str, Any]]) -> str:
    """The records as a page: a table of the steps with the peer's, the parts, the golden rows, what went wrong."""
    machine = next((line for record in records for line in record["lines"] if "device" in line), {})
    lines = ["# On a GPU", "", ", ".join(f"{key} {machine[key]}" for key in ("device", "jax") if key in machine), ""]
    steps = [(r["name"], line) for r in records for line in r["lines"] if "median_s" in line]
    if steps:
        lines += ["| program | images/s | ms | peer, ms | time / peer's | goal | memory of temporaries, GiB |"]
        lines += ["|---|---|---|---|---|---|---|"]
    for name, line in steps:
        ratio = line.get("ratio")
        verdict = "" if ratio is None else f"{GOAL:.2f}: {'met' if ratio <= GOAL else 'NOT met'}"
        cells = (name, line["images_per_s"], f"{1e3 * line['median_s']:.0f}")
        cells += (f"{1e3 * line['peer_median_s']:.0f}", ratio) if ratio is not None else ("", "")
        lines.append("| " + " | ".join(map(str, (*cells, verdict, line.get("temporaries_gb", "")))) + " |")
    parts = [line for r in records for line in r["lines"] if line.get("benchmark", "").endswith("_parts")]
    if parts:
        columns = [key for key in parts[0] if key != "benchmark"]
        lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(part.get(key, "")) for key in columns) + " |" for part in parts]
    for record in records:
        checks = [line for line in record["lines"] if "check" in line]
        verdict = "time ended it" if record["status"] is None else f"status {record['status']}"
        lines += ["", f"## {record['name']}: {verdict}, {record['seconds']} s", "", "```", record["command"]]
        lines += [json.dumps(check) for check in checks]
        lines += [line for line in record["output"] if "rows" in line]
        if record["status"] != 0:
            lines += record["errors"]
        lines.append("```")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 1 where a measurement failed or time ran out."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="gpu", metavar="DIR", help="gets records.jsonl and summary.md")
    parser.add_argument("--minutes", type=float, default=9, help="after which nothing runs any more")
    parser.add_argument("--config", default="configs/maskrcnn_r50_c2am.py")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--golden", type=Path, help="folder of recordings of the PyTorch reference")
    options = parser.parse_args(arguments)
    end = time.perf_counter() + 60 * options.minutes
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    planned = measurements(options.size, options.batch, options.steps, options.config, options.golden, out)
    for one in planned:
        left = end - time.perf_counter()
        if left < FEWEST_SECONDS:
            break
        print(one.name, flush=True)
        records.append(run(one, left))
        (out / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (out / "summary.md").write_text(summary(records))
    print(summary(records))
    left_out = [one.name for one in planned[len(records) :]]
    if left_out:
        print(f"no time for: {', '.join(left_out)}", file=sys.stderr)
    return int(bool(left_out) or any(record["status"] != 0 for record in records))


if __name__ == "__main__":
    sys.exit(main())
