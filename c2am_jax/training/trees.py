"""The class hierarchies of a training set, made when a method asks for them."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from c2am_jax.data.hierarchy import geometric_tree, lexical_tree, visual_tree
from c2am_jax.data.objects import read_objects
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.errors import UserError
from c2am_jax.files import as_path
from c2am_jax.losses.methods.forest import parent_count
from c2am_jax.training.initial import weights_of_workdir

_FIX = "name the workdir of a baseline on the same data, such as runs/maskrcnn_r50_ce"


def trees_of(dataset: PreparedDataset) -> Callable[[str], Mapping[str, np.ndarray]]:
    """`ClassStatistics.trees` of a data set; its annotations are read at the first call."""

    @functools.cache
    def from_annotations() -> dict[str, np.ndarray]:
        found, classes = read_objects(dataset.annotations_path, dataset.categories.ids), len(dataset.categories)
        return {
            "lexical": lexical_tree(found.texts, parent_count("lexical", classes)),
            "geometric": geometric_tree(found, parent_count("geometric", classes)),
        }

    def trees(visual: str) -> dict[str, np.ndarray]:
        return from_annotations() | ({"visual": _visual(visual, len(dataset.categories))} if visual else {})

    return trees


def _visual(workdir: str, classes: int) -> np.ndarray:
    if not (as_path(workdir) / "checkpoints").is_dir():  # the reader would make it
        raise UserError(f"config.loss.visual={workdir}: no run with checkpoints there; {_FIX}")
    weights, _ = weights_of_workdir(as_path(workdir))
    kernels = [value for name, value in weights.items() if name.endswith("fc_cls.kernel")]
    if not kernels or kernels[0].shape[1] != classes + 1:
        raise UserError(f"config.loss.visual={workdir}: no classifier of {classes} classes and background; {_FIX}")
    return visual_tree(kernels[0], parent_count("visual", classes))
