"""The classifier's weight norms, the quantity that the paper is about (Figure 1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from c2am_jax.data.lvis import FREQUENCIES, CategoryTable

CLASSIFIER_KERNEL = "roi_head.bbox_head.fc_cls.kernel"
QUANTILES = (10, 50, 90)
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}


def group_quantiles(norms: np.ndarray, frequency: Sequence[str]) -> dict[str, dict[int, float]]:
    """Quantiles (per cent) of foreground norms [K] per frequency group; empty groups are left out."""
    letters = np.asarray(frequency)
    return {
        GROUP_NAMES[g]: {q: float(np.percentile(norms[letters == g], q)) for q in QUANTILES}
        for g in FREQUENCIES
        if (letters == g).any()
    }


def weight_norm_table(kernel: np.ndarray, categories: CategoryTable) -> dict[str, Any]:
    """Norms of the classifier's columns [D, C] (background last).

    Returns:
      "groups": quantiles per frequency group, "background": its norm, "categories": id, name, frequency, image count
      and norm of each, most frequent first.
    """
    norms = np.linalg.norm(np.asarray(kernel, np.float64), axis=0)
    order = np.argsort(-categories.image_count, kind="stable")
    rows = [
        {
            "id": int(categories.ids[k]),
            "name": categories.names[k],
            "frequency": categories.frequency[k],
            "image_count": int(categories.image_count[k]),
            "norm": float(norms[k]),
        }
        for k in order
    ]
    groups = group_quantiles(norms[:-1], categories.frequency)
    return {"groups": groups, "background": float(norms[-1]), "categories": rows}
