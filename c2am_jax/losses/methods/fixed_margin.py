"""One angular margin for all competitors (the paper, Table 5)."""

import functools
import math

from c2am_jax.checks import Positive
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def fixed_margin_loss(
    features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0, margin: float = 0.2
) -> PerSample:
    """Table 5's "Fixed": every competitor, background included, gets the same angular margin in radians."""
    angles.check_labels(labels)
    c = angles.cosines(features, kernel)
    moved = angles.cos_of_sum(c, math.cos(margin), math.sin(margin), "literal")
    return softmax_cross_entropy(scale * angles.with_own(moved, labels, angles.own(c, labels)), labels)


def fixed_margin(scale: Positive = 30.0, margin: float = 0.2) -> Classification:
    """`margin` in radians."""
    return angles.angular(functools.partial(fixed_margin_loss, scale=scale, margin=margin), scale=scale)
