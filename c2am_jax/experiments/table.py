"""Run the rows of one of the paper's tables and put the paper's numbers beside ours.

`one_stage` compares all losses of one stage, `two_stage` the methods of a second one.

    python -m c2am_jax.experiments.table N [--data glyphs|glyphs_lvis|lvis_v1|lvis_v05] [--seeds S] [--rows ROW ...]
        [--out DIR] [--override KEY=VALUE ...] [--first KEY=VALUE ...] [--devices 0,1 2,3] [--page] [--dry_run]
        [--step_seconds T]

Every row is a training run in a workdir under DIR; finished ones are not run again,
unfinished ones resume from their newest checkpoint. The table is printed and written to DIR/tableN_DATA.md; --page
writes a page with more measures, curves and pictures beside it, see `experiments.page`.
"""

import argparse
import dataclasses
import queue
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.errors import EXIT_STOPPED, UserError, guarded
from c2am_jax.experiments.page import mean_and_deviation, write_page
from c2am_jax.experiments.published import paper
from c2am_jax.experiments.rows import BUILT_IN, DATA, TABLES, Row, config_argument, rows_of, start_of
from c2am_jax.experiments.runs import PlannedRun, plan, row_overrides
from c2am_jax.storage import check_output
from c2am_jax.wording import noun

COLUMNS = {"mask AP": "segm/AP", "APr": "segm/APr", "APc": "segm/APc", "APf": "segm/APf", "box AP": "bbox/AP"}
# On glyphs LVIS's share of detections is a cap, see `config.glyphs`; without it classes do not compete.
CAPPED = {f"{name}@25": f"{metric}@25" for name, metric in COLUMNS.items()}
Plan = list[tuple[Row, list[PlannedRun]]]


def markdown(planned: Plan, number: str, data: str, failed: Sequence[Path] = ()) -> str:
    """The table; mean ± standard deviation over the seeds that are finished."""
    columns = {**CAPPED, "mask AP": "segm/AP", "box AP": "bbox/AP"} if data == "glyphs" else COLUMNS
    header = ["row", "seeds", *columns, "paper: mask AP (r/c/f)", "paper: box AP"]
    lines = [
        f"Table {number}: {TABLES[number][0]}, {data}",
        "",
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
    ]
    for row, runs in planned:
        found = [metrics for metrics in (run.metrics() for run in runs) if metrics is not None]
        if found:
            cells = [mean_and_deviation([metrics.get(name) for metrics in found]) for name in columns.values()]
        else:
            broken = any(run.workdir in failed for run in runs)
            cells = ["failed" if broken else "not run", *[""] * (len(columns) - 1)]
        published = [text or "-" for text in dataclasses.astuple(paper(number, row.key, data))]
        lines.append(f"| {' | '.join([row.title, f'{len(found)} of {len(runs)}', *cells, *published])} |")
    if data in BUILT_IN:
        lines += ["", f"The paper's numbers are of LVIS v1.0: only their order compares with {data}."]
    if data == "glyphs":
        lines += ["@25: of the best 25 detections of each image, LVIS's share of the classes; the rest: of all 100."]
    return "\n".join(lines)


def planned_run(
    number: str, row: Row, data: str, seed: int, out: Path, user: Mapping[str, Any], user_first: Mapping[str, Any]
) -> PlannedRun:
    """A row of table `number` with a seed, and with the run that it starts from.

    Data and model in `user` are those of the first stage, too; `user_first` has what is its alone.

    Raises:
      UserError: a key or value that the config does not know.
    """
    experiment, recipe = start_of(number, row, data)
    first = None
    if experiment:
        shared = {key: value for key, value in user.items() if key.startswith(("data.", "model."))}
        first = plan(str(config_argument(experiment, data)), {}, {**shared, **user_first}, seed, out)
    own = {**recipe, **user}
    return plan(str(config_argument(row.experiment, data)), row.overrides, own, seed, out, first)


def describe(planned: Plan, step_seconds: float | None) -> str:
    """What would run, as lines for a shell: the commands, and as comments steps and time.

    The time is that of steps of `step_seconds`, or of the rate in the logs.
    """
    lines, total, hours, unknown = [], 0, 0.0, 0
    logged = [rate for _, runs in planned for rate in (run.seconds_per_step() for run in runs) if rate]
    first = {run.first.workdir: run.first for _, runs in planned for run in runs if run.first}
    for key, runs in [("first stage", list(first.values())), *((row.key, runs) for row, runs in planned)]:
        for run in runs:
            last = run.last_step()
            left = 0 if run.metrics() is not None else last - run.done_steps()
            rate = step_seconds or run.seconds_per_step() or (float(np.median(logged)) if logged else None)
            cost = (
                "finished" if run.metrics() is not None else f"{left * rate / 3600:.2f} h" if rate else "time unknown"
            )
            lines += [f"# {key}: {last - left} of {last} {noun(last, 'step')}, {cost}", shlex.join(run.command())]
            total, hours, unknown = (
                total + left,
                hours + left * (rate or 0) / 3600,
                unknown + (rate is None and left > 0),
            )
    rest = f"; {unknown} {noun(unknown, 'run')} without a known step time: give --step_seconds" if unknown else ""
    time = f"about {hours:.2f} h on one device set" if hours or not unknown else "time unknown"
    return "\n".join([*lines, f"# {total} {noun(total, 'step')} to train, {time}{rest}"])


def execute(planned: Plan, devices: Sequence[str | None]) -> list[Path]:
    """Run what is not finished, first stages before what starts from them; returns the workdirs that failed.

    Raises:
      UserError: another process trains in a workdir.
      SystemExit: a run was asked to stop (status 75); the same command resumes.
    """
    missing = [run for _, runs in planned for run in runs if run.metrics() is None]
    first = {run.first.workdir: run.first for run in missing if run.first and run.first.metrics() is None}
    failed = _execute(list(first.values()), devices)
    later = {run.workdir: run for run in missing if run.workdir not in first}
    orphans = [workdir for workdir, run in later.items() if run.first and run.first.workdir in failed]
    return failed + orphans + _execute([run for run in later.values() if run.workdir not in orphans], devices)


def _execute(runs: Sequence[PlannedRun], devices: Sequence[str | None]) -> list[Path]:
    """One run for each device set at a time."""
    free: queue.Queue[str | None] = queue.Queue()
    for one in devices:
        free.put(one)

    def work(run: PlannedRun) -> tuple[Path, int]:
        one = free.get()
        try:
            print(f"{run.workdir}: step {run.done_steps()} of {run.last_step()}", flush=True)
            return run.workdir, run.execute(one)
        finally:
            free.put(one)

    if len(devices) == 1:  # in the main thread, so that a signal ends the child too
        statuses = {}
        for run in runs:
            statuses |= dict([work(run)])
            if EXIT_STOPPED in statuses.values():
                break
    else:
        with ThreadPoolExecutor(len(devices)) as pool:
            try:
                statuses = dict(pool.map(work, runs))
            except BaseException:  # what waits does not start; what runs comes to its end
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if EXIT_STOPPED in statuses.values():
        print("asked to stop: run the same command again to resume", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    for workdir, status in statuses.items():
        if status:
            lines = (workdir / "train.log").read_text().splitlines()
            print(
                f"{workdir}: training ended with status {status}: {lines[-1] if lines else 'no output'}",
                file=sys.stderr,
            )
    return [workdir for workdir, status in statuses.items() if status]


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status, 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="c2am_jax.experiments.table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("number", metavar="N", choices=list(TABLES), help=f"of the paper's table: {', '.join(TABLES)}")
    parser.add_argument("--data", choices=DATA, default="glyphs")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="keys or your own FILE.py; wrong ones list all")
    parser.add_argument("--out", default="runs/tables", metavar="DIR")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="of every row's config")
    parser.add_argument(
        "--first", action="append", default=[], metavar="KEY=VALUE", help="of the configs of first stages"
    )
    parser.add_argument(
        "--devices", nargs="+", metavar="SET", help="CUDA_VISIBLE_DEVICES of runs side by side: 0,1 2,3"
    )
    parser.add_argument("--page", action="store_true", help="also write a page: more measures, curves, pictures")
    parser.add_argument("--dry_run", action="store_true", help="print the commands of the plan, their steps and time")
    parser.add_argument("--step_seconds", type=float, help="for --dry_run; default: what the logs say")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: at least 1")
    table, out = (options.number, options.data), Path(options.out)
    user = row_overrides(options.override), row_overrides(options.first)
    planned = [
        (row, [planned_run(options.number, row, options.data, seed, out, *user) for seed in range(options.seeds)])
        for row in rows_of(*table, options.rows)
    ]
    if options.dry_run:
        print(describe(planned, options.step_seconds))
        return 0
    check_output("--out", out, folder=True)
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    try:
        failed = execute(planned, options.devices or [None])
    finally:
        signal.signal(signal.SIGTERM, previous)
    text = markdown(planned, *table, failed)
    file = out / f"table{options.number}_{options.data}.md"
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    print(f"{text}\n\n{file}")
    if options.page:
        title = f"{TABLES[options.number][0]}, {options.data}"
        words = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["python", "-m", "c2am_jax.experiments.table", *words])
        print(write_page(planned, file.with_suffix(""), title, command))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
