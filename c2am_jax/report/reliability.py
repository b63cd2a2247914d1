"""Are scores probabilities? Precision of the detections in each range of scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from c2am_jax.evaluation.ap_matching import CategoryResult

BINS = 10


def reliability(results: Sequence[CategoryResult], bins: int = BINS) -> dict[str, Any]:
    """Mean score and precision (at IoU 0.5) of detections that count, in equal ranges of scores.

    Args:
      results: of the categories to look at.
      bins: ranges between 0 and 1, each without its lower end; scores beyond count in the outer ones.

    Returns:
      "bins": low, high, count, score, precision of each range (score and precision None without detections);
      "count"; "error": the expected calibration error (Guo et al., ICML 2017), None without detections.
    """
    scores = np.concatenate([r.scores for r in results] or [np.zeros(0)])
    hits = np.concatenate([r.hits for r in results] or [np.zeros(0, bool)])
    which = np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    score_sum, hit_sum = (np.bincount(which, weights, bins) for weights in (scores, hits.astype(float)))
    rows = []
    for b in range(bins):
        n = int(count[b])
        mean, precision = (float(score_sum[b]) / n, float(hit_sum[b]) / n) if n else (None, None)
        rows.append({"low": b / bins, "high": (b + 1) / bins, "count": n, "score": mean, "precision": precision})
    error = float(np.abs(score_sum - hit_sum).sum() / len(scores)) if len(scores) else None
    return {"bins": rows, "count": len(scores), "error": error}
