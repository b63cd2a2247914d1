"""Tables on the terminal and as csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2am_jax.evaluation.classifier_norms import QUANTILES
from c2am_jax.files import write_output
from c2am_jax.frequency import GROUPS

AP_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300")
COCO_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100")


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as they need; the cells of the first `left` begin at the left, all others end at the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    sides = [f"{'<' if place < left else '>'}{width}" for place, width in enumerate(widths)]
    lines = ("  ".join(map(format, row, sides)) for row in (header, *rows))
    return "\n".join(line.rstrip() for line in lines)


def ap_table(metrics: Mapping[str, float]) -> str:
    """One line per IoU type, in per cent; "-" where the annotations have nothing to count."""
    protocol, columns = ("LVIS", AP_COLUMNS) if any(n.endswith("/APf") for n in metrics) else ("COCO", COCO_COLUMNS)
    if any(name.endswith("/AR@all") for name in metrics):
        columns = (*columns[:-1], "AR@all")
    rows = []
    for iou_type in ("bbox", "segm", "boundary"):
        if f"{iou_type}/AP" in metrics:
            values = [metrics[f"{iou_type}/{column}"] for column in columns]
            rows.append([iou_type, *(f"{100 * v:.1f}" if v >= 0 else "-" for v in values)])
    return aligned([protocol, *columns], rows)


def pool_line(metrics: Mapping[str, float], iou_type: str) -> str:
    """AP-pool (`LVISAP.pooled`) of all categories and of each group, in per cent."""
    values = {name: metrics[f"APpool{letter}"] for letter, name in {"": "all", **GROUPS}.items()}
    told = ", ".join(f"{name} {100 * value:.1f}" if value >= 0 else f"{name} -" for name, value in values.items())
    return f"{iou_type}: AP-pool, all categories in one ranking: {told}"


def caps_table(rows: Sequence[Mapping[str, Any]], iou_type: str) -> str:
    """AP under caps (`evaluation.caps.capped`), a line for each, in per cent."""
    columns = ("AP", "AP50", "APr", "APc", "APf")
    cells = [
        [str(row["cap"]), f"{row['share']:.3g}", *(f"{100 * row[c]:.1f}" if row[c] >= 0 else "-" for c in columns)]
        for row in rows
    ]
    title = f"{iou_type}: only the best k detections of each image (LVIS: k / classes = 0.25)"
    return f"{title}\n{aligned(['k', 'k / classes', *columns], cells)}"


def comparison_table(
    ours: Mapping[str, float], theirs: Mapping[str, float], differences: Mapping[str, float], iou_type: str
) -> str:
    """One line per metric, as parts of 1; "-" where the annotations have nothing to count."""

    def show(value: float) -> str:
        return "-" if value == -1 else f"{value:.6f}"

    rows = [[name, show(ours[name]), show(value), f"{differences[name]:.1e}"] for name, value in theirs.items()]
    return aligned([iou_type, "ours", "lvis", "difference"], rows)


def difference_table(metrics: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """AP of A, of B and A - B in per cent, three lines per IoU type; "-" where the annotations have nothing to count.

    Args:
      metrics: by IoU type and name, (A, B, difference), None for nothing to count.
    """
    columns, rows = ("AP", "AP50", "AP75", "APr", "APc", "APf"), []
    for iou_type, values in metrics.items():
        for place, (name, form) in enumerate((("A", ".1f"), ("B", ".1f"), ("A - B", "+.1f"))):
            cells = [values[column][place] for column in columns]
            rows.append([f"{iou_type} {name}", *("-" if v is None else f"{100 * v:{form}}" for v in cells)])
    return aligned(["LVIS", *columns], rows)


def threshold_line(rows: Sequence[Mapping[str, float]], iou_type: str) -> str:
    """The score threshold with the best F1 at IoU 0.5, for who wants to look at detections."""
    best = max(rows, key=lambda row: row["f1"])
    return (
        f"{iou_type}: best score threshold {best['threshold']:.2f}: precision {100 * best['precision']:.1f} %, "
        f"recall {100 * best['recall']:.1f} % at IoU 0.5"
    )


def norm_table(norms: Mapping[str, Any], stage: str = "") -> str:
    """Weight-norm quantiles per frequency group, and background's norm if it has one, of a cascade's `stage`."""
    rows = [[name, *(f"{values[q]:.3f}" for q in QUANTILES)] for name, values in norms["groups"].items()]
    table = aligned([f"classifier weight norm {stage}".rstrip(), *(f"p{q}" for q in QUANTILES)], rows)
    return table if norms["background"] is None else f"{table}\nbackground {norms['background']:.3f}"


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A csv file with the keys of the first row as its head; empty where nothing counts (-1)."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if isinstance(value, float) and value < 0 else value for key, value in row.items()})
    write_output(path, text.getvalue())
