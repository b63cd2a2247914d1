"""Softmax cross-entropy, the plain baseline."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num


def softmax_cross_entropy(logits: Num[Array, "n c"], labels: Int[Array, "n"]) -> Float[Array, "n"]:
    """-log softmax(z)_label per sample, in float32 at least."""
    logits = logits if logits.dtype == jnp.float64 else logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
