"""Softmax cross-entropy, which most methods are made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num


def softmax_cross_entropy(logits: Num[Array, "n c"], labels: Int[Array, "n"]) -> Float[Array, "n"]:
    """-log softmax(z)_label per sample, in float32 at least: [N, C] and [N] -> [N].

    Written as softplus of the odds against the label, which keeps small losses and their gradients exact where
    logsumexp(z) - z_label would cancel.
    """
    return jax.nn.softplus(log_odds_against(logits, labels))


def log_odds_against(logits: Num[Array, "n c"], labels: Int[Array, "n"]) -> Float[Array, "n"]:
    """Logsumexp over the classes j other than the label of z_j - z_label: [N]."""
    logits = logits if logits.dtype == jnp.float64 else logits.astype(jnp.float32)
    difference = logits - jnp.take_along_axis(logits, labels[:, None], 1)
    is_label = jnp.arange(logits.shape[1])[None] == labels[:, None]
    return jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, difference), axis=-1)
