"""Compile all of the paper's detectors for chips that are not there, row by row, and make the table of docs/scaling.md.

    python -m benchmarks.topologies --out rows.jsonl [--topology v5e:2x2] [--only prediction] [--rows 4] [--plan]
    python -m benchmarks.topologies --out rows.jsonl --table docs/scaling.md

A row is one call of train.py --dry_run --topology, which --plan prints. Rows that are in the file are not compiled
again, so an interrupted call resumes. A row that fails is written too, with its error; --again compiles those too. The
last form compiles nothing: it writes the table between the two marks in the document.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONFIGS = ("maskrcnn_r50_c2am", "maskrcnn_r101_c2am", "cascade_r50_c2am", "cascade_r101_c2am")
DTYPES, REMAT, IMAGES = ("bfloat16", "float32"), (False, True), (2, 1, 4)
BEGIN, END = "<!-- table of benchmarks.topologies -->", "<!-- end of the table -->"
HEADER = (
    "config, type, images per chip",
    "GFLOP per image",
    "memory, GiB",
    "of which temporaries",
    "program code",
    "fits",
    "at least, ms",
    "at most, images/s/chip",
    "three largest parts, ms",
    "all-reduces",
    "compiled in",
)


def plan(topology: str, chips: int) -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of train.py of every row; the most wanted first.

    The paper's other losses change little but the classifier's output, so C2AM's rows stand for them.
    """
    for remat in REMAT:
        for dtype in DTYPES:
            for images in IMAGES:
                for config in CONFIGS:
                    yield (
                        f"{config}, {dtype}, {images}{', rematerialisation' if remat else ''}",
                        [
                            "--dry_run",
                            f"--topology={topology}",
                            f"--config={config}",
                            f"--config.train.batch_size={images * chips}",
                            f"--config.train.compute_dtype={dtype}",
                            f"--config.model.backbone.remat={remat}",
                        ],
                    )
    for dtype in DTYPES:
        for config in CONFIGS:
            yield (
                f"{config}, prediction, {dtype}, 1",
                [
                    "--dry_run",
                    "--program=predict",
                    f"--topology={topology}",
                    f"--config={config}",
                    f"--config.eval.batch_size={chips}",
                    f"--config.eval.compute_dtype={dtype}",
                ],
            )


def compiled(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The row of one call: its numbers, or its error."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "c2am_jax.train", *arguments], capture_output=True, text=True)
    row = {"row": name, "command": ["train.py", *arguments], "seconds": round(time.perf_counter() - start, 1)}
    if done.returncode == 0:
        return row | {"numbers": json.loads(done.stdout)}
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return row | {"error": next((line for line in lines if line.startswith("error: ")), lines[-1])[:500]}


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by name; later lines replace earlier ones, and a line that was cut off is left out."""
    rows = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["row"]] = row
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of all rows, failed ones with their error."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if "error" in row:
        return [row["row"], row["error"].replace("|", "/"), *[""] * (len(HEADER) - 2)]
    numbers = row["numbers"]
    memory, estimate, sums = numbers["memory_gib"], numbers["estimate"], numbers["collectives"].get("all-reduce")
    parts = [f"{part['name']} {part['ms']:.1f}" for part in estimate["by_part"][:3]] if estimate else []
    return [
        row["row"],
        f"{numbers['gflops_per_image']:.0f}",
        f"{memory['total']:.2f}",
        f"{memory['temporaries']:.2f}",
        f"{memory['program_code']:.2f}",
        "yes" if memory.get("fits") else "no",
        f"{estimate['ms']:.0f}" if estimate else "",
        f"{estimate['images_per_s_per_device']:.1f}" if estimate else "",
        ", ".join(parts),
        f"{sums['count']}, {sums['bytes'] / 1e6:.0f} MB, {sums['in_loop'] or 'none'} in loops" if sums else "none",
        f"{numbers['compile_seconds']:.0f} s",
    ]


def put(document: Path, text: str) -> None:
    """Write the table between the marks of a document. Raises ValueError if it lacks them."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document}: no lines {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="rows, one JSON object a line; added to")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="rows with these words in their name: prediction, remat"
    )
    parser.add_argument("--rows", type=int, help="compile at most that many now")
    parser.add_argument("--again", action="store_true", help="rows that failed too")
    parser.add_argument("--plan", action="store_true", help="print the commands of the rows that are missing, and stop")
    parser.add_argument("--table", type=Path, metavar="DOCUMENT", help="only write the table into it")
    options = parser.parse_args()
    rows = read(options.out)
    if options.table:
        return put(options.table, table([*rows.values()]))
    chips = math.prod(int(side) for side in options.topology.partition(":")[2].split("x"))
    missing = [
        (name, arguments)
        for name, arguments in plan(options.topology, chips)
        if options.only in name and (name not in rows or (options.again and "error" in rows[name]))
    ]
    for name, arguments in missing[: options.rows]:
        if options.plan:
            print("python train.py", *arguments)
            continue
        row = compiled(name, arguments)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: row.get(key) for key in ("row", "seconds", "error")}), flush=True)


if __name__ == "__main__":
    main()
