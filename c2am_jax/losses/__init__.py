"""Losses: pure functions of features or logits, labels and class statistics."""

from c2am_jax.losses.angles import cosine_logits, cosines
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy
from c2am_jax.losses.methods import make_classification
from c2am_jax.losses.methods.arcface import arcface_loss
from c2am_jax.losses.methods.c2am import c2am_loss, c2am_margins
from c2am_jax.losses.methods.cosface import cosface_loss
from c2am_jax.losses.methods.cosine import cosine_softmax_loss
from c2am_jax.losses.methods.fixed_margin import fixed_margin_loss
from c2am_jax.losses.methods.sphereface import sphereface_lambda, sphereface_loss

__all__ = [
    "Classification",
    "Head",
    "Samples",
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
