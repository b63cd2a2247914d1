"""CosFace (Wang et al., CVPR 2018; Table 1): a margin between cosines."""

import functools

from c2am_jax.checks import Positive
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def cosface_loss(
    features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0, margin: float = 0.35
) -> PerSample:
    """CosFace (Table 1): the label's logit is s (cos(theta) - m)."""
    angles.check_labels(labels)
    c = angles.cosines(features, kernel)
    return softmax_cross_entropy(scale * angles.with_own(c, labels, angles.own(c, labels) - margin), labels)


def cosface(scale: Positive = 30.0, margin: float = 0.35) -> Classification:
    """The own class has to win by `margin` of the cosine."""
    return angles.angular(functools.partial(cosface_loss, scale=scale, margin=margin), scale=scale)
