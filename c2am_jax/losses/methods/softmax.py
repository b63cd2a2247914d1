"""Softmax cross-entropy over inner products, the baseline of every table."""

from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def softmax() -> Classification:
    """Neither state nor parameters."""

    def loss(samples: Samples, head: Head, state):
        return softmax_cross_entropy(head.linear(samples.features), samples.labels), state

    return Classification("linear", loss)
