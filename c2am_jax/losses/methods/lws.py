"""Learnable weight scaling (Kang et al., ICLR 2020), a second stage: ``z_c = f_c W_c x + b_c``."""

import jax
import jax.numpy as jnp

from c2am_jax.losses.classification import Classification, Head, Samples, linear_logits
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def lws() -> Classification:
    """The scales f start at 1; only they train."""

    def logits(features: jax.Array, head: Head):
        return linear_logits(features, head.kernel * head.extra["factor"], head.bias)

    def loss(samples: Samples, head: Head, state):
        return softmax_cross_entropy(logits(samples.features, head), samples.labels), state

    def extra_parameters(num_classes, width, draw_key):
        return {"factor": jnp.ones(num_classes + 1)}

    return Classification("linear", loss, logits, extra_parameters=extra_parameters)
