"""Box regression with a class-agnostic branch as plain weights of each class, and the way back.

A branch W_0 beside the classes' W_c computes with (W_0 + W_c) / 2 (`models.box_head.BoxRegressor`), which is one linear
layer: other programs, and detectors without a branch, take it as weights of each class and compute the same. The two
parts cannot be told apart in such weights, so whatever trains on there trains weights of each class. A detector with a
branch that starts from plain weights W'_c takes their mean over the classes as W_0, and W_c = 2 W'_c - W_0: the same
boxes again.
"""

from collections.abc import Collection, Mapping

import numpy as np

Arrays = dict[str, np.ndarray]
BRANCH = ".fc_reg.shared."
PLAIN = ".fc_reg."


def _joined(each: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """[4 K, ...] and [4, ...] -> [4 K, ...]: half of both."""
    return ((each.reshape(-1, *shared.shape) + shared) / 2).reshape(each.shape).astype(each.dtype)


def _parted(plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[4 K, ...] -> the classes' own [4 K, ...] and the shared [4, ...]; `_joined` takes them back."""
    each = plain.reshape(-1, 4, *plain.shape[1:])
    shared = each.mean(0, dtype=np.float64).astype(plain.dtype)
    return (2 * each - shared).reshape(plain.shape), shared


def plain(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The same without a class-agnostic branch: arrays under MMDetection's names, in PyTorch's layout."""
    found = {name: value for name, value in arrays.items() if BRANCH not in name}
    for name, value in arrays.items():
        own = name.replace(BRANCH, PLAIN)
        if own != name and own in arrays:
            found[own] = _joined(arrays[own], value)
    return found


def like(arrays: Mapping[str, np.ndarray], names: Collection[str]) -> Arrays:
    """The same weights for a detector with arrays of these `names`, be it with or without a class-agnostic branch.

    Args:
      arrays: under MMDetection's names, in PyTorch's layout.
      names: MMDetection's names of the detector's arrays.
    """
    branches = {name for name in names if BRANCH in name}
    if not branches:
        return plain(arrays)
    found = dict(arrays)
    for name in sorted(branches - set(arrays)):
        own = name.replace(BRANCH, PLAIN)
        if own in arrays and len(arrays[own]) % 4 == 0:
            found[own], found[name] = _parted(arrays[own])
    return found
