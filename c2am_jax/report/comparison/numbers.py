"""Numbers of two evaluations side by side, as plain json: A is the first, B the other, a difference is A minus B."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c2am_jax.evaluation.lvis_ap import LVISAP
from c2am_jax.frequency import GROUPS
from c2am_jax.report.collect import rounded

SCORES = ("AP", "AP50")


def compared(scored: Sequence[Mapping[str, LVISAP]]) -> dict[str, Any]:
    """Metrics, means of groups, and the categories of two evaluations.

    Args:
      scored: of A and of B, by the same IoU types, of the same categories in the same order.

    Returns:
      "metrics": by IoU type and name, (A, B, difference); "groups": by IoU type a row for all categories and each
      group, with such triples for AP and AP50, and how many categories are "better" and "worse" in A; "categories": a
      row for each, with ``bbox_a``, ``bbox_b`` and ``bbox_difference`` of AP and so on. None: nothing to count.
    """
    kinds = list(scored[0])
    tables = {kind: [side[kind].category_table() for side in scored] for kind in kinds}
    return {
        "metrics": {kind: _metrics(*(side[kind].metrics() for side in scored)) for kind in kinds},
        "groups": {kind: _groups(*pair) for kind, pair in tables.items()},
        "categories": _categories(tables),
    }


def triple(a: float | None, b: float | None) -> tuple[float | None, float | None, float | None]:
    """Both values and their difference."""
    a, b = rounded(a), rounded(b)
    return a, b, None if a is None or b is None else round(a - b, 6)


def moved(categories: Sequence[Mapping[str, Any]], kind: str, most: int) -> tuple[list[dict], list[dict]]:
    """The categories whose AP is higher in A by most, and those that are higher in B; at most `most` of each."""
    known = [dict(row) for row in categories if row[f"{kind}_difference"] is not None]
    ordered = sorted(known, key=lambda row: -abs(row[f"{kind}_difference"]))
    better = [row for row in ordered if row[f"{kind}_difference"] > 0]
    worse = [row for row in ordered if row[f"{kind}_difference"] < 0]
    return better[:most], worse[:most]


def settings_that_differ(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings by dotted key that two runs do not share; of one that only one of them has, the other is "not set"."""
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = {key: (ours.get(key, "not set"), theirs.get(key, "not set")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _metrics(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, Any]:
    return {name: triple(value, theirs[name]) for name, value in ours.items()}


def _groups(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for letter, name in {"": "all", **GROUPS}.items():
        pairs = [
            (a, b) for a, b in zip(ours, theirs, strict=True) if letter in ("", a["frequency"]) and a["ground_truths"]
        ]
        row: dict[str, Any] = {"group": name, "annotated": len(pairs)}
        row["objects"] = sum(a["ground_truths"] for a, _ in pairs)
        for score in SCORES:
            means = [float(np.mean([pair[side][score] for pair in pairs])) if pairs else None for side in (0, 1)]
            row[score] = triple(*means)
        row["better"] = sum(a["AP"] > b["AP"] for a, b in pairs)
        row["worse"] = sum(a["AP"] < b["AP"] for a, b in pairs)
        rows.append(row)
    return rows


def _categories(tables: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    rows = []
    for place, first in enumerate(next(iter(tables.values()))[0]):
        row = {key: first[key] for key in ("id", "name", "frequency", "image_count", "ground_truths")}
        for kind, (ours, theirs) in tables.items():
            values = triple(ours[place]["AP"], theirs[place]["AP"])
            row |= dict(zip((f"{kind}_a", f"{kind}_b", f"{kind}_difference"), values, strict=True))
        rows.append(row)
    return rows
