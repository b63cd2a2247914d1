"""Methods that know parents of classes: Forest R-CNN."""

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses.classification import Classification, linear_logits
from c2am_jax.losses.forest import forest_logits, parent_count, parents_in
from c2am_jax.losses.softmax import softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def forest(statistics: ClassStatistics, visual: str = "") -> Classification:
    """Forest R-CNN (Wu et al., ACM MM 2020): a classifier of parents beside that of classes in each of several trees.

    A branch is a layer as wide as the features, ReLU, and a classifier of the tree's parents and background; its
    gradient stops at the features. The losses of all branches and of the classes are added. `visual` names the workdir
    of a trained baseline, whose classifier makes a visual tree beside the lexical and the geometric one.

    The trees are part of the head, so a checkpoint is evaluated with those it was trained with.
    """
    trees = ("lexical", "geometric", "visual") if visual else ("lexical", "geometric")

    def branches(features, kernel, bias, extra):
        """Logits of the classes, and of each tree's parents (background last)."""
        fixed, parents = jax.lax.stop_gradient(features), []
        for tree in trees:
            hidden = jax.nn.relu(linear_logits(fixed, extra[f"{tree}_hidden"], extra[f"{tree}_hidden_bias"]))
            parents.append(linear_logits(hidden, extra[f"{tree}_kernel"], extra[f"{tree}_bias"]))
        return linear_logits(features, kernel, bias), parents, [extra[f"{tree}_parent"] for tree in trees]

    def logits(features, kernel, bias, **extra):
        return forest_logits(*branches(features, kernel, bias, extra))

    def loss(features, kernel, bias, labels, weights, state, axis_name=None, **extra):
        del weights, axis_name
        fine, parents, parent_of = branches(features, kernel, bias, extra)
        coarse = [softmax_cross_entropy(z, of[labels]) for z, of in zip(parents, parent_of, strict=True)]
        return softmax_cross_entropy(fine, labels) + sum(coarse), state

    def extra(num_classes, width, draw_key):
        found: dict[str, jax.Array] = {}
        for tree in trees:
            count, parent = parent_count(tree, num_classes), parents_in(tree, statistics, visual, num_classes)
            draw = lambda *shape, std: std * jax.random.normal(draw_key(), shape)  # noqa: E731
            found |= {
                f"{tree}_hidden": draw(width, width, std=1 / np.sqrt(width)),
                f"{tree}_hidden_bias": jnp.zeros(width),
                f"{tree}_kernel": draw(width, count + 1, std=0.01),
                f"{tree}_bias": jnp.zeros(count + 1),
                f"{tree}_parent": jnp.append(jnp.asarray(parent, jnp.int32), count),
            }
        return found

    return Classification("linear", logits, loss, extra_parameters=extra)
