"""Losses: pure functions of features or logits, labels and class statistics."""

from c2am_jax.losses.classification import Classification
from c2am_jax.losses.cosine import (
    arcface_loss,
    c2am_loss,
    c2am_margins,
    cosface_loss,
    cosine_logits,
    cosine_softmax_loss,
    cosines,
    fixed_margin_loss,
    sphereface_lambda,
    sphereface_loss,
)
from c2am_jax.losses.methods import make_classification
from c2am_jax.losses.softmax import softmax_cross_entropy

__all__ = [
    "Classification",
    "arcface_loss",
    "c2am_loss",
    "c2am_margins",
    "cosface_loss",
    "cosine_logits",
    "cosine_softmax_loss",
    "cosines",
    "fixed_margin_loss",
    "make_classification",
    "softmax_cross_entropy",
    "sphereface_lambda",
    "sphereface_loss",
]
