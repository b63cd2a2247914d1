"""ArcFace (Deng et al., CVPR 2019; Table 1): an angular margin for the own class."""

import functools
import math
from typing import Annotated

import jax.numpy as jnp

from c2am_jax.checks import Positive, one_of
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy

WRAPS = ("fallback", "easy", "literal")


def arcface_loss(
    features: Features,
    kernel: Kernel,
    labels: Labels,
    *,
    scale: float = 30.0,
    margin: float = 0.5,
    wrap: str = "fallback",
) -> PerSample:
    """ArcFace (Table 1): the label's logit is s cos(theta + m).

    `wrap` beyond theta + m = pi: "fallback" uses cos(theta) - m sin(m) there, "easy" applies the margin only where
    cos(theta) > 0, "literal" is the formula.
    """
    angles.check_choice("wrap", wrap, WRAPS)
    angles.check_labels(labels)
    c = angles.cosines(features, kernel)
    target = angles.own(c, labels)
    moved = angles.cos_of_sum(target, math.cos(margin), math.sin(margin), "literal")
    if wrap == "fallback":
        moved = jnp.where(target > math.cos(math.pi - margin), moved, target - margin * math.sin(margin))
    elif wrap == "easy":
        moved = jnp.where(target > 0, moved, target)
    return softmax_cross_entropy(scale * angles.with_own(c, labels, moved), labels)


def arcface(
    scale: Positive = 30.0, margin: float = 0.5, wrap: Annotated[str, one_of(*WRAPS)] = "fallback"
) -> Classification:
    """`margin` in radians; `wrap` of `arcface_loss`."""
    return angles.angular(functools.partial(arcface_loss, scale=scale, margin=margin, wrap=wrap), scale=scale)
