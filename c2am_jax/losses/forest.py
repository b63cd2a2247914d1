"""Forest R-CNN's inference rule (Wu et al., ACM MM 2020): classes calibrated by the scores of their parents."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def forest_calibration(
    fine_logits: Float[Array, "n c"],
    parent_logits: Sequence[Float[Array, "n _"]],
    parent_of: Sequence[Int[Array, " c"]],
) -> Float[Array, "n c"]:
    """``score_c ~ exp(z_c) mean_t P_t(parent_t(c))``, normalised over the classes.

    Args:
      fine_logits: of the classes, background among them, in any order.
      parent_logits: of each tree's parents; P_t is their softmax.
      parent_of: index of each class's parent in each tree.
    """
    found = [
        jax.nn.softmax(logits, axis=-1)[:, parents] for logits, parents in zip(parent_logits, parent_of, strict=True)
    ]
    return jax.nn.softmax(fine_logits + jnp.log(sum(found) / len(found)), axis=-1)
