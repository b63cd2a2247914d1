"""The page of a table: more than AP of each row, with curves and pictures.

DIR/PAGE/README.md       tables: mask AP by group at LVIS's share of detections, AP-fixed, AP-pool, background
DIR/PAGE/numbers.json    what the tables are made of: `experiments.ranking.ranking` of each finished seed, by row
DIR/PAGE/caps.png        mask AP when only so many of the best detections of each image count
DIR/PAGE/norms.png       weight norms of the groups and of background over training, and background's margins
DIR/PAGE/KEY.jpg         annotations beside detections of the row's first seed
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from c2am_jax.evaluation.caps import LVIS_SHARE
from c2am_jax.experiments.figures import COLOURS, figure
from c2am_jax.experiments.ranking import ranking
from c2am_jax.experiments.rows import Row
from c2am_jax.experiments.runs import PlannedRun
from c2am_jax.frequency import GROUPS

Plan = Sequence[tuple[Row, Sequence[PlannedRun]]]
Found = dict[str, list[dict[str, Any]]]  # what `ranking` says of the finished seeds, by the row's key
LETTERS = ("", *GROUPS)
STYLES = ("-", "--", ":", "-.")
PICTURE_SIDE = 1200  # pixels of the longer side, at most


def mean_and_deviation(values: Sequence[float | None], scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation of the values that exist (None and -1 do not), "-" for none; per cent by default."""
    known = [scale * value for value in values if value is not None and value >= 0]
    if not known:
        return "-"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def write_page(planned: Plan, folder: Path, title: str, command: str) -> Path:
    """Write the page of what is finished; returns its README.md. Scores are kept beside each run's evaluation.

    The page names the `command` that makes it, and how long a run trained.
    """
    found = {row.key: [r for r in (ranking(run) for run in runs) if r is not None] for row, runs in planned}
    rows = [(row, runs) for row, runs in planned if found[row.key]]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", f"This page was made by `{command}`.{_training_time(rows)}", _tables(rows, found)]
    (folder / "numbers.json").write_text(json.dumps(found))
    if rows:
        _draw_caps(folder / "caps.png", rows, found)
        parts += ["Mask AP when only the best k detections of each image count:", "![AP under caps](caps.png)"]
        if _draw_norms(folder / "norms.png", rows):
            parts += [
                "Weight norms over training, and the margins of background samples:",
                "![Weight norms](norms.png)",
            ]
        parts += _pictures(folder, rows)
    page = folder / "README.md"
    page.write_text("\n\n".join(parts) + "\n")
    return page


def _training_time(rows: Plan) -> str:
    rates = [(run, run.seconds_per_step()) for _, runs in rows for run in runs if run.metrics() is not None]
    minutes = [run.last_step() * rate / 60 for run, rate in rates if rate]
    if not minutes:
        return ""
    return f" Training took {np.median(minutes):.1f} minutes a run (median), without start and evaluation."


def _tables(rows: Plan, found: Found) -> str:
    def by_group(read: Callable[[dict[str, Any], str], float | None], **how: Any) -> Callable[[Row], list[str]]:
        return lambda row: [
            mean_and_deviation([read(one, letter) for one in found[row.key]], **how) for letter in LETTERS
        ]

    def capped(one: dict[str, Any], letter: str) -> float:
        return next(row for row in one["caps"] if row["cap"] == one["cap"])[f"AP{letter}"]

    def background(what: str) -> Callable[[dict[str, Any], str], float | None]:
        return lambda one, letter: one["background"][LETTERS.index(letter)][what]

    ap = ("AP", "rare", "common", "frequent")
    cap = next((one["cap"] for each in found.values() for one in each), 0)
    told = f"the best {cap} detections of each image, LVIS's {LVIS_SHARE:g} of the classes"
    parts = [
        (f"Mask AP (%) of {told}", ap, by_group(capped)),
        ("Mask AP (%) of all detections", ap, by_group(lambda one, letter: one["caps"][-1][f"AP{letter}"])),
        (
            "Mask AP-fixed (%): classes rank by themselves",
            ap,
            by_group(lambda one, letter: one["fixed"][f"AP{letter}"]),
        ),
        (
            "Mask AP-pool (%): all classes in one ranking",
            ap,
            by_group(lambda one, letter: one["pool"][f"APpool{letter}"]),
        ),
        (
            f"Detections on background per image, by the group they name, of {told}",
            ("all", *ap[1:]),
            by_group(background("background"), scale=1, digits=2),
        ),
        (
            "The same as a share (%) of the group's detections",
            ("all", *ap[1:]),
            by_group(background("share")),
        ),
    ]
    texts = []
    for title, columns, cells in parts:
        header = ["row", "seeds", *columns]
        lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        lines += [f"| {' | '.join([row.title, str(len(found[row.key])), *cells(row)])} |" for row, _ in rows]
        texts.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(texts) if rows else "No run is finished."


def _line(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "ls": STYLES[number // len(COLOURS) % len(STYLES)]}


def _legend(axes: np.ndarray) -> None:
    """One for all panels, below them."""
    panel = axes[0, 0]
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)


def _draw_caps(path: Path, rows: Plan, found: Found) -> None:
    with figure(path, 1, len(LETTERS), (15, 5)) as axes:
        for letter, panel in zip(LETTERS, axes[0], strict=True):
            for number, (row, _) in enumerate(rows):
                curves = [[(c["share"], 100 * c[f"AP{letter}"]) for c in one["caps"]] for one in found[row.key]]
                share, precision = np.mean(curves, 0).T
                panel.plot(share, precision, marker=".", label=row.title, **_line(number))
            panel.axvline(LVIS_SHARE, color="0.7", lw=1)
            panel.set(title=GROUPS.get(letter, "all"), xlabel="k / classes", xscale="log", ylim=(0, None))
        axes[0, 0].set_ylabel("mask AP (%)")
        _legend(axes)


def _logged(run: PlannedRun) -> list[Mapping[str, Any]]:
    """Lines of the log that have norms of a single classifier, in the order of steps."""
    file = run.workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [line for line in lines if "norm/background" in line]


def _draw_norms(path: Path, rows: Plan) -> bool:
    """Median norms over the steps, of the first seed, and α / π log(‖W_background‖ / ‖W_j‖); False without a log."""
    logs = [(row, run, _logged(run)) for row, runs in rows for run in runs[:1]]
    logs = [(row, run, lines) for row, run, lines in logs if lines]
    if not logs:
        return False
    groups = ["background", *(name for name in GROUPS.values() if f"norm/{name}/p50" in logs[0][2][0])]
    with figure(path, 1, len(groups) + 1, (3.8 * (len(groups) + 1), 5)) as axes:
        for number, (row, run, lines) in enumerate(logs):
            steps = [line["step"] for line in lines]
            key = {name: "norm/background" if name == "background" else f"norm/{name}/p50" for name in groups}
            norms = {name: np.array([line[key[name]] for line in lines]) for name in groups}
            for name, panel in zip(groups, axes[0], strict=False):
                panel.plot(steps, norms[name], label=row.title, **_line(number))
                panel.set(title=f"norm, {name}", xlabel="step")
            loss = run.experiment().loss.parameters
            if loss.get("background") == "all":
                margin = loss["alpha"] / np.pi * np.log(norms["background"] / norms[groups[1]])
                axes[0, -1].plot(steps, np.maximum(margin, 0), label=row.title, **_line(number))
        for panel in axes[0]:  # of all rows, so last
            panel.set_ylim(0, None)
        axes[0, -1].set(title=f"margin of background against {groups[1]}", xlabel="step", ylabel="radians")
        _legend(axes)
    return True


def _pictures(folder: Path, rows: Plan) -> list[str]:
    parts = []
    for row, runs in rows:
        source = runs[0].workdir / "eval" / str(runs[0].last_step()) / "pictures.jpg"
        if source.is_file():
            name = "".join(letter if letter.isalnum() or letter in "_=." else "_" for letter in row.key) + ".jpg"
            with Image.open(source) as picture:
                picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
                picture.save(folder / name, quality=80)
            parts.append(f"{row.title}, annotations beside detections:\n\n![{row.title}]({name})")
    return parts
