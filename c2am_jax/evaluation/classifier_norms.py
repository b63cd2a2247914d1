"""The classifier's weight norms, the quantity that the paper is about (Figure 1)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c2am_jax.data.lvis import CategoryTable
from c2am_jax.frequency import GROUPS

_KERNEL = re.compile(r"roi_head\.bbox_head\.(?:(\d+)\.)?fc_cls\.kernel")
QUANTILES = (10, 50, 90)


def classifier_kernels(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Kernels [D, C] of each box classifier, by stage: "" for Mask R-CNN, "s0", "s1", ... for a cascade."""
    found = {name: match for name in sorted(params) if (match := _KERNEL.fullmatch(name))}
    return {f"s{m[1]}" if m[1] else "": np.asarray(params[name], np.float64) for name, m in found.items()}


def classifier_norms(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Norms of the columns [C] of each box classifier, by stage."""
    return {stage: np.linalg.norm(kernel, axis=0) for stage, kernel in classifier_kernels(params).items()}


def group_quantiles(norms: np.ndarray, frequency: Sequence[str]) -> dict[str, dict[int, float]]:
    """Quantiles (per cent) of foreground norms [K] per frequency group; empty groups are left out."""
    letters = np.asarray(frequency)
    return {
        name: {q: float(np.percentile(norms[letters == letter], q)) for q in QUANTILES}
        for letter, name in GROUPS.items()
        if (letters == letter).any()
    }


def background_norm(norms: np.ndarray, classes: int) -> float | None:
    """Norm of the last column; None for a classifier without one for background."""
    return float(norms[-1]) if len(norms) > classes else None


def weight_norm_table(norms: np.ndarray, categories: CategoryTable) -> dict[str, Any]:
    """Norms of a classifier's columns [C]: the K classes first, background last.

    Returns:
      "groups": quantiles per frequency group, "background": its norm or None, "categories": id, name, frequency, image
      count and norm of each, most frequent first.
    """
    order = np.argsort(-categories.image_count, kind="stable")
    table, keys = categories.as_dicts(), ("id", "name", "frequency", "image_count")
    rows = [{key: table[k][key] for key in keys} | {"norm": float(norms[k])} for k in order]
    groups = group_quantiles(norms[: len(categories)], categories.frequency)
    return {"groups": groups, "background": background_norm(norms, len(categories)), "categories": rows}
