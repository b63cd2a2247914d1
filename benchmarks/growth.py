"""How a training step's time and memory grow with image size, batch, classes and RoIs; JSON lines and a plot.

    python -m benchmarks.growth --out docs/images/growth.png [--config configs/maskrcnn_r50_c2am.py] [--steps 3]

Every point is a process of its own (`benchmarks.train_step`), so that its peak memory is its own. One thing grows at a
time; the others stay at 512x512, one image, 1203 classes, 512 RoIs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

CURVES = {
    "image side, pixels": ("--size", (256, 384, 512, 768, 1024)),
    "images": ("--batch", (1, 2, 4)),
    "classes": ("--classes", (80, 1203, 10000)),
    "RoIs": ("--rois", (128, 256, 512, 1024)),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/maskrcnn_r50_c2am.py")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", default="growth.png", help="the plot")
    options = parser.parse_args()
    done: dict[tuple[str, ...], dict] = {}
    curves = {}
    for name, (flag, values) in CURVES.items():
        curves[name] = []
        for value in values:
            given = {"--size": "512", flag: str(value)}
            point = (f"{given['--size']}x{given['--size']}", *sorted(given.items()))
            usual = value == {"--size": 512, "--batch": 1, "--classes": 1203, "--rois": 512}[flag]
            key = ("usual",) if usual else point
            if key not in done:
                command = [sys.executable, "-m", "benchmarks.train_step", "--config", options.config]
                command += ["--steps", str(options.steps), "--size", given["--size"], given.pop("--size")]
                command += [text for pair in given.items() for text in pair]
                output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                done[key] = json.loads(output.splitlines()[-1])
            line = done[key]
            keys = ("median_s", "min_s", "peak_rss_gb", "temporaries_gb", "gflop", "positive_rois", "compile_s")
            print(json.dumps({"benchmark": "growth", name: value, **{k: line[k] for k in keys}}), flush=True)
            curves[name].append((value, line["median_s"], line["temporaries_gb"]))
    draw(curves, Path(options.out))


def draw(curves: dict[str, list[tuple[float, float, float]]], out: Path) -> None:
    """One panel per curve: seconds on the left axis, temporaries on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), layout="constrained")
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        values, seconds, memory = zip(*points, strict=True)
        panel.plot(values, seconds, "o-", color="tab:blue")
        other = panel.twinx()
        other.plot(values, memory, "s--", color="tab:orange")
        panel.set(xlabel=name, ylim=(0, None))
        other.set(ylim=(0, None))
        if panel is panels[0]:
            panel.set_ylabel("seconds per step", color="tab:blue")
        if panel is panels[-1]:
            other.set_ylabel("temporaries, GiB", color="tab:orange")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
