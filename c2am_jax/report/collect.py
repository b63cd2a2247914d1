"""From an evaluation to the numbers of the page, as plain json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c2am_jax.evaluation.caps import capped, usual_caps
from c2am_jax.evaluation.lvis_ap import LVISAP
from c2am_jax.frequency import GROUPS
from c2am_jax.report.inspection import Inspection
from c2am_jax.report.reliability import reliability

SCORES = ("AP", "AP50", "AP75", "AR")
PAIRS = 100  # confusions that are listed
MATRIX = 14  # categories of the small matrix


def best_threshold(scored: LVISAP) -> dict[str, float]:
    """The score threshold with the best F1 at IoU 0.5."""
    return max(scored.thresholds(), key=lambda row: row["f1"])


def numbers(
    scored: Mapping[str, LVISAP],
    inspection: Inspection,
    *,
    norms: Mapping[str, Mapping[str, Any]] | None = None,
    kernels: Mapping[str, np.ndarray] | None = None,
    caps: Sequence[int] = (),
) -> dict[str, Any]:
    """Everything but pictures, configuration and environment.

    Args:
      scored: by IoU type, of the same categories.
      inspection: of the same detections.
      norms: tables of `weight_norm_table` by stage of the classifier; categories go by name.
      kernels: of the classifier, [D, V] by stage, a column for each of the V categories.
      caps: of detections per image, for the curve of AP; () takes `evaluation.caps.usual_caps`.

    Returns:
      "metrics", "groups", "categories" (a row per category by column), "calibration", "thresholds", "confusion", "caps"
      (but of AP-fixed, which has none), and with a classifier "norms" by stage.
    """
    tables = {kind: found.category_table() for kind, found in scored.items()}
    first = next(iter(scored.values()))
    found: dict[str, Any] = {
        "metrics": {kind: {name: rounded(v) for name, v in s.metrics().items()} for kind, s in scored.items()},
        "groups": _groups(tables),
        "categories": _categories(tables, norms or {}),
        "calibration": {kind: _calibration(s) for kind, s in scored.items()},
        "thresholds": {kind: best_threshold(s) for kind, s in scored.items()},
        "confusion": _confusion(inspection, first.categories.names, kernels or {}),
    }
    if first.limit:
        wanted = caps or usual_caps(len(first.results))
        found["caps"] = {kind: [_rounded_row(row) for row in capped(s, wanted)] for kind, s in scored.items()}
    if norms:
        found["norms"] = {
            stage: {"groups": table["groups"], "background": rounded(table["background"])}
            for stage, table in norms.items()
        }
    return found


def rounded(value: float | None) -> float | None:
    """Six decimals; None for what does not exist, -1 by the protocol or NaN."""
    return None if value is None or math.isnan(value) or value == -1 else round(float(value), 6)


def _rounded_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if name == "cap" else rounded(value) for name, value in row.items()}


def _groups(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row for all categories and each frequency group: how many, with objects, objects, and means by IoU type."""
    rows = []
    for letter, name in {"": "all", **GROUPS}.items():
        row: dict[str, Any] = {"group": name}
        for kind, table in tables.items():
            own = [c for c in table if letter in ("", c["frequency"])]
            scored = [c for c in own if c["ground_truths"]]
            row |= {"categories": len(own), "annotated": len(scored)}
            row["objects"] = sum(c["ground_truths"] for c in own)
            row[kind] = {s: rounded(float(np.mean([c[s] for c in scored]))) if scored else None for s in SCORES}
            row[kind]["zero"] = sum(c["AP"] <= 0 for c in scored)
        rows.append(row)
    return rows


def _categories(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], norms: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    by_stage = {stage: _norms_by_name(table["categories"]) for stage, table in norms.items()}
    rows = []
    for same in zip(*tables.values(), strict=True):
        row = {k: same[0][k] for k in ("id", "name", "frequency", "image_count", "instance_count", "ground_truths")}
        for kind, category in zip(tables, same, strict=True):
            row |= {f"{kind}_{score}": rounded(category[score]) for score in SCORES}
        for stage, of in by_stage.items():
            row[f"norm_{stage}"] = rounded(of.get((row["id"], row["name"]), of.get(row["name"])))
        rows.append(row)
    return rows


def _norms_by_name(rows: Sequence[Mapping[str, Any]]) -> dict[Any, float]:
    """Norms by (id, name), which tells categories of one name apart, and by name, for annotations with other ids."""
    return {c["name"]: c["norm"] for c in rows} | {(c["id"], c["name"]): c["norm"] for c in rows}


def _calibration(scored: LVISAP) -> dict[str, Any]:
    found = {"all": reliability(scored.results)}
    for letter, name in GROUPS.items():
        classes = scored.categories.group(letter)
        if len(classes):
            found[name] = reliability([scored.results[k] for k in classes])
    return found


def _confusion(found: Inspection, names: Sequence[str], kernels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The most frequent confusions, and a matrix of the categories in the first of them."""
    objects, right = int(found.objects.sum()), int(found.right.sum())
    other = int(found.pairs[:, 2].sum())
    kernel = list(kernels.values())[-1] if kernels else None
    unit = None if kernel is None else kernel / np.maximum(np.linalg.norm(kernel, axis=0), 1e-12)
    rows = []
    for i, j, count in found.pairs[:PAIRS].tolist():
        row = {"truth": names[i], "taken_for": names[j], "count": count, "objects": int(found.objects[i])}
        if unit is not None:
            row["cosine"] = rounded(float(unit[:, i] @ unit[:, j]))
        rows.append(row)
    shown: list[int] = []
    for i, j in found.pairs[:, :2].tolist():
        new = [k for k in (i, j) if k not in shown]
        if len(shown) + len(new) > MATRIX:
            break
        shown += new
    counts = {(i, j): n for i, j, n in found.pairs.tolist()}
    counts |= {(k, k): int(found.right[k]) for k in shown}
    return {
        "objects": objects,
        "right": right,
        "other": other,
        "none": objects - right - other,
        "pairs": rows,
        "matrix": {
            "names": [names[k] for k in shown],
            "objects": [int(found.objects[k]) for k in shown],
            "counts": [[counts.get((i, j), 0) for j in shown] for i in shown],
        },
    }
