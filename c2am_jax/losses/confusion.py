"""Which classes samples of a class are taken for: confusion matrices of methods that read them.

Row i is a class of ground truth, column j what the classifier gives to it: the softmax over the K foreground logits,
background left out, averaged over the foreground samples of class i.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2am_jax.losses.classification import Samples


def confusion_sums(logits: Float[Array, "n c"], samples: Samples, classes: int) -> tuple[jax.Array, jax.Array]:
    """Sums over the foreground samples of all devices, and the number of samples of each class: [K, K] and [K].

    Args:
      logits: [N, C]; the first K are those of the classes. No gradient is taken.
      samples: of this device; padding is left out.
      classes: K.
    """
    taken = jax.nn.softmax(jax.lax.stop_gradient(logits[:, :classes]), -1)
    label = jnp.where(samples.foreground(classes), samples.labels, classes)
    member = jax.nn.one_hot(label, classes, dtype=taken.dtype)
    return samples.sum(member.T @ taken), samples.sum(member.sum(0))
