"""BALMS's balanced sigmoid as its LVIS code has it (Ren et al., NeurIPS 2020), without the meta re-weighter."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2am_jax.losses.channels import Labels, Logits, foreground_only, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def balanced_sigmoid_loss(logits: Logits, labels: Labels, frequency: Float[Array, " k"]) -> Float[Array, " n"]:
    """Binary cross-entropies of each sample, foreground logits shifted by -ln((1 - f) / f).

    `frequency`: share of images that hold each class, [K]; samples of background are not shifted.
    """
    classes = logits.shape[1]
    targets = one_hot(labels, classes, logits.dtype)
    shift = jnp.log(frequency) - jnp.log1p(-frequency)
    foreground = (labels < classes)[:, None]
    return binary_cross_entropy(jnp.where(foreground, logits + shift, logits), targets).sum(-1)


def balanced_sigmoid(statistics: ClassStatistics) -> Classification:
    """Image frequencies."""
    frequency = np.clip(statistics.image_frequency, 1e-6, 1 - 1e-6)

    def loss(samples: Samples, head: Head, state):
        logits = head.linear(samples.features)
        return balanced_sigmoid_loss(logits, samples.labels, jnp.asarray(frequency, logits.dtype)), state

    return foreground_only(loss)
