"""AP under caps: what is left of it when only the best k detections of each image are scored.

LVIS scores 300 detections of an image, a quarter of its 1203 classes, so classes compete for them by their scores. A
small set with as many detections as classes knows no such competition; a cap of a quarter of its classes brings it
back. How AP falls with k tells how well scores of different classes compare.

Detections are matched in the order of their scores, so those that a cap leaves out change no match before them: one
matching serves all caps, and each number is exactly that of a results file cut to k.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.evaluation.ap_matching import CategoryResult, interpolated
from c2am_jax.evaluation.detection_rows import MAX_DETECTIONS
from c2am_jax.evaluation.lvis_ap import LVISAP
from c2am_jax.frequency import GROUPS

LVIS_SHARE = 0.25  # 300 detections of 1203 classes
SHARES = (0.04, 0.08, 0.16, LVIS_SHARE, 0.5, 1.0)  # of the classes, for curves


def usual_caps(classes: int) -> list[int]:
    """Caps at `SHARES` of the classes, up to LVIS's 300, ascending."""
    return sorted({min(max(round(share * classes), 1), MAX_DETECTIONS) for share in SHARES})


def check_caps(caps: Sequence[int]) -> None:
    """Raises UserError for a cap that LVIS AP cannot have."""
    for cap in caps:
        if not 1 <= cap <= MAX_DETECTIONS:
            raise UserError(
                f"--caps {cap}: give numbers from 1 to {MAX_DETECTIONS}; LVIS AP scores at most {MAX_DETECTIONS} "
                "detections of an image"
            )


def capped(scored: LVISAP, caps: Sequence[int]) -> list[dict[str, Any]]:
    """A row per cap: "cap", "share" (of the classes), and AP, AP50, APr, APc, APf as `LVISAP.metrics` has them.

    Args:
      scored: by the usual limit of 300 detections of an image, not AP-fixed.
      caps: how many of the best detections of each image count.
    """
    rows = []
    for cap in caps:
        precision = np.stack([_precision(result, cap) for result in scored.results], 2)  # [IoU, recall, category]
        groups = {f"AP{letter}": precision[:, :, scored.categories.group(letter)] for letter in GROUPS}
        values = {"AP": precision, "AP50": precision[:1], **groups}
        row = {name: float(v[v > -1].mean()) if (v > -1).any() else -1.0 for name, v in values.items()}
        rows.append({"cap": int(cap), "share": cap / len(scored.results), **row})
    return rows


def metrics_of(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The same by name: "AP@25" is AP when 25 detections of each image count."""
    return {f"{name}@{row['cap']}": row[name] for row in rows for name in row if name.startswith("AP")}


def _precision(result: CategoryResult, cap: int) -> np.ndarray:
    """Precision at each IoU and recall threshold of the detections below a rank, [T, R]; -1 without ground truths."""
    score, kind = result.pooled
    if not result.ground_truths:
        return -np.ones(result.precision.shape[:2])
    kept = np.flatnonzero(result.ranks < cap)
    kind = kind[:, kept[np.argsort(-score[kept], kind="stable")]]
    true, false = (np.cumsum(kind == what, 1).astype(float) for what in (2, 1))
    return interpolated(true, false, result.ground_truths)
