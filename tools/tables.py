"""Write the generated tables of the docs: between ``<!-- table: NAME -->`` and ``<!-- end -->`` in README.md and docs/.

    python tools/tables.py [--check]

Published numbers come from `c2am_jax.experiments.published`, comparisons with MMDetection from tests/golden/errors.md,
plans of pods from `benchmarks.pods`.
With --check nothing is written, and the exit status is 1 if a page is out of date.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pods  # noqa: E402
from c2am_jax.experiments.published import METHODS, PAPER  # noqa: E402
from c2am_jax.experiments.rows import TABLES  # noqa: E402

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def of_configs() -> str:
    """The paper's Table 2, and its row of Table 4 that has a config of its own."""
    rows = [(row.experiment, "2", PAPER["2"][row.key].v1) for row in TABLES["2"][1]]
    rows.insert(1, ("maskrcnn_r50_cosine", "4 (α = 0)", METHODS["cosine"].v1))
    cells = ([f"`{name}`", table, numbers.mask, numbers.box] for name, table, numbers in rows)
    return markdown(("config", "paper's table", "mask AP % (rare/common/frequent)", "box AP %"), cells)


def of_sweeps() -> str:
    """The paper's Tables 3 and 4."""
    cells = []
    for number, symbol in (("4", "α"), ("3", "s")):
        found = (f"{symbol} = {key.partition('=')[2]}: {result.v1.mask}" for key, result in PAPER[number].items())
        cells.append([number, ", ".join(found)])
    return markdown(("paper's table", "mask AP %, LVIS v1.0"), cells)


def of_methods() -> str:
    """What the authors of each method report."""
    cells = ([f"`{name}`", str(found.v1), str(found.v05), found.note] for name, found in METHODS.items())
    return markdown(("method", "LVIS v1.0, AP %", "LVIS v0.5, AP %", "conditions"), cells)


# Lines of the page: (title, pattern of the stages in tests/golden/errors.md).
_PARITY = (
    ("image, weights, anchors", r"weights|input|base anchors|anchors P\d"),
    ("backbone, C2 to C5", r"C[2-5]"),
    ("feature pyramid, P2 to P6", r"P[2-6]"),
    ("RPN outputs", r"RPN .*"),
    ("proposals", r"proposals, .*"),
    ("levels of RoIs", r"levels .*"),
    ("RoIAlign", r"RoIAlign .*"),
    ("class logits, box deltas, refined boxes", r"(class logits|box deltas|refined boxes).*"),
    ("mask logits", r"mask logits.*"),
    ("best class", r"best class.*"),
    ("detections, whole chain", r"detections, .*"),
    ("masks", r"mask probabilities|pasted masks"),
    ("sampled anchors and RoIs", r"sampled .*"),
    ("mask targets", r"mask targets, full.*"),
    ("mask targets from stored 112x112 masks", r"mask targets, box-frame.*"),
    ("losses, recorded samples", r"loss .*, recorded samples"),
    ("losses, whole chain", r"loss total, whole chain"),
    ("gradients", r"gradients"),
    ("C2AM: labels, norms, margins, logits, losses", r"C2AM .*"),
    ("Seesaw: losses", r"Seesaw .*"),
)


def _rows(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, without its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def of_parity() -> str:
    """The recordings of single steps: per group of stages and per metric the largest error of all recordings."""
    text = (ROOT / "tests/golden/errors.md").read_text()
    rows = _rows(text.partition("## Stage by stage")[2].partition("\n## ")[0])
    cells, used = [], 0
    for title, pattern in _PARITY:
        found: dict[tuple[str, float], list[float]] = {}
        for stage, metric, tolerance, *errors in rows:
            if re.fullmatch(pattern, stage):
                used += 1
                found.setdefault((metric, float(tolerance)), []).extend(float(error) for error in errors if error)
        for (metric, tolerance), errors in found.items():
            cells.append([title, metric, f"{max(errors):.1e}", f"{tolerance:.0e}"])
    if used != len(rows):
        raise ValueError("tests/golden/errors.md has stages that no line of the summary takes, or that two take")
    return markdown(("stage", "measure", "largest error", "limit"), cells)


_TRAJECTORIES = (
    ("losses", r"loss .*, float64, (all steps|steps 4-11)"),
    ("losses, steps 0-3", r"loss .*, float64, steps 0-3"),
    ("classifier weight norms", r"classifier weight norms, float64, (all steps|steps 4-11)"),
    ("classifier weight norms, steps 0-3", r"classifier weight norms, float64, steps 0-3"),
    ("gradient norm (live: steps 0-3)", r"gradient norm, float64, .*"),
    ("momentum norms (live: step 1)", r"momentum norms, float64, .*"),
    ("sampled RoIs (live: steps 0-3)", r"sampled RoIs, float64, .*"),
    ("float32, first steps: losses", r"loss .*, float32, .*"),
    ("float32, first steps: classifier weight norms", r"classifier weight norms, float32, .*"),
    ("float32, first steps: gradient norm", r"gradient norm, float32, .*"),
    ("float32, first step: momentum norms", r"momentum norms, float32, .*"),
    ("float32, first steps: sampled RoIs", r"sampled RoIs, float32, .*"),
)


def of_trajectories() -> str:
    """Twelve steps of training: per quantity the largest error of cross-entropy, C2AM, and C2AM with live proposals."""
    text = (ROOT / "tests/golden/errors.md").read_text()
    left = _rows(text.partition("## Twelve steps of training")[2])
    cells = []
    for title, pattern in _TRAJECTORIES:
        chosen = [row for row in left if re.fullmatch(pattern, row[0])]
        left = [row for row in left if row not in chosen]
        errors = [[float(row[i].split()[0]) for row in chosen if row[i]] for i in (2, 3, 4)]
        cells.append([title, *(f"{max(found):.1e}" if found else "" for found in errors)])
    if left:
        raise ValueError(f"tests/golden/errors.md has rows that no line of the summary takes: {left}")
    return markdown(("largest relative error of", "CE", "C2AM", "C2AM, live proposals"), cells)


TABLES_OF_DOCS: dict[str, Callable[[], str]] = {
    "configs": of_configs,
    "sweeps": of_sweeps,
    "methods": of_methods,
    "parity": of_parity,
    "trajectories": of_trajectories,
    "pods": lambda: pods.table(pods.plans()),
}


def rendered(text: str) -> str:
    """A page with its tables as they should be."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES_OF_DOCS[found[2]]()}\n{found[3]}", text)


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a page is out of date")
    options = parser.parse_args()
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        if rendered(text) != text:
            stale.append(page)
            if not options.check:
                page.write_text(rendered(text))
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'out of date, run python tools/tables.py' if options.check else 'written'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
