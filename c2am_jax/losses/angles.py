"""Angles between features x [N, D] and class weights W_j, the columns of a kernel [D, C]: cosines, and cos(theta + m).

With unit vectors, c_j = cos(theta_j) = x.W_j / (|x||W_j|). Losses of them take x, W and integer labels [N] (the last
column is background) and return one loss per sample [N].

Numerics: no arccos anywhere, cos(theta + m) = c cos(m) - sqrt(1 - c^2) sin(m) with 1 - c^2 floored (1e-6 in
float32, the rounding error of a 1024-term dot product; 1e-15 in float64); norms floored at 1e-6 before division
(float64: 1e-12); everything in float32 at least, whatever the type of the inputs. Margins carry no gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from c2am_jax.losses.classification import Classification, Head, Samples, State

Features = Num[Array, "n d"]
Kernel = Num[Array, "d c"]
Labels = Int[Array, "n"]
PerSample = Float[Array, "n"]
NORM_EPS = 1e-6  # added to each norm by the reference's normalised layers


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is none of `choices`."""
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def check_labels(labels: jax.Array) -> None:
    """Raise TypeError for labels that are no integers [N]."""
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be an integer vector [N], got {labels.dtype} {labels.shape}: soft or smoothed labels have "
            "no margin"
        )


def precise(x: jax.Array) -> jax.Array:
    """In float32 at least."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _normalise(x: jax.Array, axis: int) -> jax.Array:
    """Unit vectors; differentiable at zero, where the plain norm's gradient is NaN."""
    floor = 1e-24 if x.dtype == jnp.float64 else 1e-12
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis, keepdims=True), floor))


def cosines(features: Features, kernel: Kernel) -> Float[Array, "n c"]:
    """cos(theta_j) between each feature and each class weight."""
    features, kernel = precise(features), precise(kernel)
    return jnp.matmul(_normalise(features, -1), _normalise(kernel, 0), precision=jax.lax.Precision.HIGHEST)


def cosine_logits(features: Features, kernel: Kernel, *, scale: float = 30.0) -> Float[Array, "n c"]:
    """S cos(theta_j), the logits of inference and of Eq. 5: [N, C]."""
    return scale * cosines(features, kernel)


def normed(x: jax.Array, axis: int) -> jax.Array:
    """``x / (|x| + 1e-6)`` along an axis; the gradient at zero is finite."""
    square = jnp.sum(x * x, axis, keepdims=True)
    return x / (jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0) + NORM_EPS)


def sines(c: jax.Array) -> jax.Array:
    """sqrt(1 - c^2), floored; below the floor the gradient is zero, which keeps 0 * inf out of the backward pass."""
    return jnp.sqrt(jnp.maximum(1 - c * c, 1e-15 if c.dtype == jnp.float64 else 1e-6))


def own(x: jax.Array, labels: jax.Array) -> jax.Array:
    """Each row's value in the column of its label: [N, C] and [N] -> [N]."""
    return jnp.take_along_axis(x, labels[:, None], 1)[:, 0]


def with_own(x: jax.Array, labels: jax.Array, values: jax.Array) -> jax.Array:
    """`x` [N, C] with `values` [N] in the columns of the labels."""
    is_label = jnp.arange(x.shape[1])[None] == labels[:, None]
    return jnp.where(is_label, values[:, None], x)


def cos_of_sum(c: jax.Array, cos_m: jax.Array | float, sin_m: jax.Array | float, wrap: str) -> jax.Array:
    """cos(theta + m); what to do beyond theta + m = pi is `wrap`."""
    value = c * cos_m - sines(c) * sin_m
    if wrap == "literal":
        return value
    wrapped = c < -cos_m  # theta > pi - m, as the cosine falls on [0, pi]
    return jnp.where(wrapped, -1.0 if wrap == "clip" else -2.0 - value, value)


def angular(
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], *, scale: float, **options: Any
) -> Classification:
    """A method without state that scores by ``scale * cos(theta)``; its `loss` is of (features, kernel, labels)."""

    def of_samples(samples: Samples, head: Head, state: State):
        return loss(samples.features, head.kernel, samples.labels), state

    return Classification("cosine", of_samples, scaled_cosines(scale), **options)


def scaled_cosines(scale: float) -> Callable[[jax.Array, Head], jax.Array]:
    """`Classification.own_logits` of a method that scores by ``scale * cos(theta)``."""
    return lambda features, head: cosine_logits(features, head.kernel, scale=scale)
