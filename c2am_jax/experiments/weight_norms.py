"""Figure 1: weight norms of the categories by frequency, and the precision of the first and the last of them.

    python -m c2am_jax.experiments.weight_norms --workdir DIR [--workdir DIR ...] --out DIR [--step N] [--ends 100]

Reads what the evaluation wrote (eval/STEP/weight_norms.json and category_ap.json), for any number of runs.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.errors import UserError, guarded
from c2am_jax.experiments.figures import COLOURS, figure
from c2am_jax.storage import check_output


@dataclasses.dataclass(frozen=True)
class NormsAndAP:
    """What an evaluation says about each category, most frequent first.

    Attributes:
      title: name of the experiment (and the stage of a cascade).
      image_count: training images of each category [K].
      norm: weight norms [K].
      precision: mask AP in [0, 1] [K], NaN for categories without validation images.
    """

    title: str
    image_count: np.ndarray
    norm: np.ndarray
    precision: np.ndarray

    def ends(self, count: int) -> tuple[float, float]:
        """Mean AP of the `count` most and the `count` least frequent of the categories that have an AP."""
        known = self.precision[~np.isnan(self.precision)]
        return float(known[:count].mean()), float(known[-count:].mean())

    def spread(self) -> float:
        """Largest over smallest mean norm of the tenths of categories by frequency."""
        means = [part.mean() for part in np.array_split(self.norm, min(10, len(self.norm)))]
        return float(max(means) / min(means))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: evaluate the run with eval.py --workdir") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); evaluate the run again with eval.py") from None


def load(workdir: str | Path, step: int | None = None) -> list[NormsAndAP]:
    """The evaluation of `step` (default: the newest) of a run, one entry for each stage of its detector.

    Raises:
      UserError: no run, no evaluation, or files that are not what an evaluation writes.
    """
    workdir = Path(workdir)
    steps = sorted(int(p.name) for p in workdir.glob("eval/*") if p.name.isdigit())
    if not steps:
        raise UserError(f"{workdir}: no evaluation there (eval/STEP); run eval.py --workdir {workdir} first")
    folder = workdir / "eval" / str(steps[-1] if step is None else step)
    norms, table = _read(folder / "weight_norms.json"), _read(folder / "category_ap.json")
    name = _read(workdir / "config.json")["name"]
    try:
        precision = {row["name"]: row["AP"] for row in table["segm"]}  # a validation json may have ids of its own
        return [
            NormsAndAP(
                f"{name} {stage}".rstrip(),
                np.array([row["image_count"] for row in stages["categories"]]),
                np.array([row["norm"] for row in stages["categories"]]),
                np.array([_known(precision.get(row["name"])) for row in stages["categories"]]),
            )
            for stage, stages in norms.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: not what this version's evaluation writes ({error}); run eval.py again") from None


def _known(value: float | None) -> float:
    return float("nan") if value is None or value < 0 else value


def draw(path: Path, runs: Sequence[NormsAndAP], count: int) -> None:
    """Norms relative to each run's mean over the categories by frequency; AP of both ends as bars."""
    with figure(path, 1, 2, (9.6, 3.8), width_ratios=(2, 1)) as axes:
        norms, bars = axes[0]
        for number, run in enumerate(runs):
            colour = COLOURS[number % len(COLOURS)]
            rank, relative = np.arange(1, len(run.norm) + 1), run.norm / run.norm.mean()
            norms.plot(rank, relative, ".", ms=4, color=colour, alpha=0.5)
            width = max(1, len(relative) // 20)
            smooth = np.convolve(relative, np.ones(width) / width, "valid")
            norms.plot(np.arange(len(smooth)) + (width + 1) / 2, smooth, color=colour, lw=2, label=run.title)
            ends = [100 * value for value in run.ends(count)]
            place = np.arange(2) + (number - (len(runs) - 1) / 2) * 0.8 / len(runs)
            drawn = bars.bar(place, ends, 0.75 / len(runs), color=colour)
            bars.bar_label(drawn, fmt="%.1f", fontsize=9)
        norms.set(xlabel="category, most frequent first", ylabel="weight norm / mean", title="Weight norms")
        norms.set_ylim(bottom=0)
        norms.legend(frameon=False)
        bars.margins(y=0.1)
        bars.set(xticks=[0, 1], xticklabels=[f"first {count}", f"last {count}"], ylabel="mask AP", title="Precision")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="c2am_jax.experiments.weight_norms", description=summary)
    parser.add_argument("--workdir", action="append", required=True, metavar="DIR", help="a run; may be repeated")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write figure1.png")
    parser.add_argument("--step", type=int, help="of the evaluation; default: the newest of each run")
    parser.add_argument("--ends", type=int, default=100, help="categories at each end; less if there are few")
    options = parser.parse_args(arguments)
    if options.ends < 1:
        raise UserError(f"--ends {options.ends}: at least 1")
    check_output("--out", options.out, folder=True)
    runs = [run for workdir in options.workdir for run in load(workdir, options.step)]
    known = min(int((~np.isnan(run.precision)).sum()) for run in runs)
    if not known:
        raise UserError(f"{options.workdir[0]}: no category has a mask AP")
    count = min(options.ends, max(1, known // 2))  # the ends of a small set do not overlap
    path = Path(options.out) / "figure1.png"
    draw(path, runs, count)
    for run in runs:
        first, last = (100 * value for value in run.ends(count))
        print(
            f"{run.title:24} mask AP of the first {count}: {first:.1f}, last {count}: {last:.1f}; "
            f"norms from {run.norm.min():.3f} to {run.norm.max():.3f}, tenths differ {run.spread():.2f} times"
        )
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
