"""Forest R-CNN (Wu et al., ACM MM 2020): classes calibrated by the scores of their parents."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2am_jax.losses.classification import Classification, Head, Samples, linear_logits
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
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
    trees = zip(parent_logits, parent_of, strict=True)
    found = [jax.nn.log_softmax(logits, axis=-1)[:, parents] for logits, parents in trees]
    return fine_logits + jax.nn.logsumexp(jnp.stack(found), axis=0) - jnp.log(len(found))


def forest(statistics: ClassStatistics, visual: str = "") -> Classification:
    """A classifier of parents beside that of classes in each of several trees.

    A branch is a layer as wide as the features, ReLU, and a classifier of the tree's parents and background; its
    gradient stops at the features. The losses of all branches and of the classes are added. `visual` names the workdir
    of a trained baseline, whose classifier makes a visual tree beside the lexical and the geometric one.

    The trees are part of the head, so a checkpoint is evaluated with those it was trained with.
    """
    trees = ("lexical", "geometric", "visual") if visual else ("lexical", "geometric")

    def branches(features: jax.Array, head: Head):
        """Logits of the classes, and of each tree's parents (background last)."""
        fixed, parents, extra = jax.lax.stop_gradient(features), [], head.extra
        for tree in trees:
            hidden = jax.nn.relu(linear_logits(fixed, extra[f"{tree}_hidden"], extra[f"{tree}_hidden_bias"]))
            parents.append(linear_logits(hidden, extra[f"{tree}_kernel"], extra[f"{tree}_bias"]))
        return head.linear(features), parents, [extra[f"{tree}_parent"] for tree in trees]

    def logits(features: jax.Array, head: Head):
        return forest_logits(*branches(features, head))

    def loss(samples: Samples, head: Head, state):
        fine, parents, parent_of = branches(samples.features, head)
        coarse = [softmax_cross_entropy(z, of[samples.labels]) for z, of in zip(parents, parent_of, strict=True)]
        return softmax_cross_entropy(fine, samples.labels) + sum(coarse), state

    def extra_parameters(num_classes, width, draw_key):
        found: dict[str, jax.Array] = {}
        for tree in trees:
            count, parent = parent_count(tree, num_classes), parents_in(tree, statistics, visual, num_classes)
            found |= {
                f"{tree}_hidden": 1 / np.sqrt(width) * jax.random.normal(draw_key(), (width, width)),
                f"{tree}_hidden_bias": jnp.zeros(width),
                f"{tree}_kernel": 0.01 * jax.random.normal(draw_key(), (width, count + 1)),
                f"{tree}_bias": jnp.zeros(count + 1),
                f"{tree}_parent": jnp.append(jnp.asarray(parent, jnp.int32), count),
            }
        return found

    return Classification("linear", loss, logits, extra_parameters=extra_parameters)
