"""Losses of the RPN, box regression and mask branches, as sums; means divide by counts summed over all devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def global_sum(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Sum over the devices of a mesh axis; the identity for `axis_name` None."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def global_mean(total: jax.Array, count: jax.Array, axis_name: str | None) -> Float[Array, ""]:
    """Globally summed `total` over globally summed `count`; 0 where nothing was counted."""
    count = global_sum(count.astype(jnp.float32), axis_name)
    return global_sum(total, axis_name) / jnp.maximum(count, 1.0)


def binary_cross_entropy(logits: Float[Array, "*n"], targets: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Element-wise BCE with logits; `targets` are 0 or 1. Small losses and the gradient at a logit of 0 are exact."""
    return jax.nn.softplus((1 - 2 * targets) * logits)


def smooth_l1(difference: Float[Array, "*n"], beta: float) -> Float[Array, "*n"]:
    """Element-wise smooth L1: quadratic below `beta`; plain L1 for beta 0, with gradient 0 where nothing differs."""
    if beta == 0:
        return difference * jax.lax.stop_gradient(jnp.sign(difference))
    absolute = jnp.abs(difference)
    small = jnp.where(absolute < beta, difference, 0)  # infinity's square makes a gradient NaN even where unused
    return jnp.where(absolute < beta, 0.5 * small * small / beta, absolute - 0.5 * beta)


def box_regression_sum(
    deltas: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], positive: Bool[Array, "*n"], *, beta: float
) -> Float[Array, ""]:
    """Smooth L1 summed over the coordinates of positive rows; other rows contribute neither value nor gradient."""
    difference = jnp.where(positive[..., None], deltas - targets, 0)
    return smooth_l1(difference, beta).sum()


def mask_mean_sum(
    logits: Float[Array, "*n h w"], targets: Float[Array, "*n h w"], positive: Bool[Array, "*n"]
) -> Float[Array, ""]:
    """Per-RoI mean BCE of a mask, summed over positive RoIs."""
    per_roi = binary_cross_entropy(logits, targets).mean((-2, -1))
    return jnp.where(positive, per_roi, 0).sum()
