"""Forest R-CNN (Wu et al., ACM MM 2020): classes calibrated by the scores of their parents."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.losses.statistics import ClassStatistics

PARENTS = {"visual": 25, "geometric": 50, "lexical": 108}  # of LVIS (authors' arrays), background not counted


def parent_count(tree: str, classes: int) -> int:
    """Parents of a tree, background not counted; a quarter of the classes where the authors' number would be more."""
    return min(PARENTS[tree], max(1, classes // 4))


def parents_in(tree: str, statistics: ClassStatistics, visual: str, classes: int) -> np.ndarray:
    """Parent of each class, int [K]; in turn where the statistics know no trees."""
    if statistics.trees is None:
        return np.arange(classes) % parent_count(tree, classes)
    return statistics.trees(visual)[tree]


def forest_logits(
    fine_logits: Float[Array, "n c"],
    parent_logits: Sequence[Float[Array, "n _"]],
    parent_of: Sequence[Int[Array, " c"]],
) -> Float[Array, "n c"]:
    """``z_c + ln mean_t P_t(parent_t(c))``, whose softmax are the scores.

    Args:
      fine_logits: of the classes, background among them, in any order.
      parent_logits: of each tree's parents; P_t is their softmax.
      parent_of: index of each class's parent in each tree.
    """
    found = [
        jax.nn.log_softmax(logits, axis=-1)[:, parents]
        for logits, parents in zip(parent_logits, parent_of, strict=True)
    ]
    return fine_logits + jax.nn.logsumexp(jnp.stack(found), axis=0) - jnp.log(len(found))
