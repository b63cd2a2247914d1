"""Cosine softmax (NormFace): cross-entropy of scaled cosines, the case alpha = 0 of C2AM."""

import functools

from c2am_jax.checks import Positive
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def cosine_softmax_loss(features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0) -> PerSample:
    """Eq. 5 (NormFace with a constant scale): cross-entropy of s cos(theta)."""
    angles.check_labels(labels)
    return softmax_cross_entropy(angles.cosine_logits(features, kernel, scale=scale), labels)


def cosine(scale: Positive = 30.0) -> Classification:
    """Scores are ``scale * cos(theta)``."""
    return angles.angular(functools.partial(cosine_softmax_loss, scale=scale), scale=scale)
