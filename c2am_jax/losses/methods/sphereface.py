"""SphereFace (A-softmax, Liu et al., CVPR 2017; Table 1): a multiplied angle for the own class, annealed."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from c2am_jax.checks import Count, NonNegative
from c2am_jax.losses import angles
from c2am_jax.losses.angles import Features, Kernel, Labels, PerSample
from c2am_jax.losses.classification import Classification, Head, Samples, count_steps
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def sphereface_lambda(
    step: Num[Array, ""] | int, *, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, minimum: float = 5.0
) -> Float[Array, ""]:
    """SphereFace's annealing: max(minimum, base (1 + gamma step)^-power)."""
    return jnp.maximum(minimum, base * (1 + gamma * jnp.asarray(step, jnp.float32)) ** -power)


def sphereface_loss(
    features: Features, kernel: Kernel, labels: Labels, *, margin: int = 4, lam: float | Num[Array, ""] = 5.0
) -> PerSample:
    """SphereFace (A-softmax, Table 1): z_j = |x| cos(theta_j), z_i = |x| (lam cos(theta_i) + psi(theta_i)) / (1 + lam).

    psi(theta) = (-1)^k cos(m theta) - 2k on [k pi / m, (k + 1) pi / m], by the Chebyshev polynomial of cos(theta).
    `margin` is m, an integer from 1; `lam` is the annealed weight of the plain cosine (`sphereface_lambda`).
    """
    if int(margin) != margin or margin < 1:
        raise ValueError(f"margin must be an integer from 1, not {margin!r}")
    angles.check_labels(labels)
    features, kernel = angles.precise(features), angles.precise(kernel)
    squared = jnp.sum(features * features, -1)
    floor = 1e-24 if features.dtype == jnp.float64 else 1e-12
    length = jnp.sqrt(jnp.maximum(squared, floor))
    c = angles.cosines(features, kernel)
    target = angles.own(c, labels)
    previous, multiple = jnp.ones_like(target), target
    for _ in range(int(margin) - 1):
        previous, multiple = multiple, 2 * target * multiple - previous
    k = sum((target < math.cos(i * math.pi / margin)).astype(target.dtype) for i in range(1, int(margin)))
    psi = (1 - 2 * (k % 2)) * multiple - 2 * k
    logits = angles.with_own(c, labels, (lam * target + psi) / (1 + lam))
    return softmax_cross_entropy(length[:, None] * logits, labels)


def sphereface(
    margin: Count = 4,
    base: NonNegative = 1000.0,
    gamma: NonNegative = 0.12,
    power: float = 1.0,
    minimum: NonNegative = 5.0,
) -> Classification:
    """Its state is the step that the annealing counts."""

    def loss(samples: Samples, head: Head, state):
        lam = sphereface_lambda(state["step"], base=base, gamma=gamma, power=power, minimum=minimum)
        per_sample = sphereface_loss(samples.features, head.kernel, samples.labels, margin=margin, lam=lam)
        return per_sample, {"step": state["step"] + 1}

    def logits(features: jax.Array, head: Head):
        length = jnp.linalg.norm(features.astype(jnp.float32), axis=-1, keepdims=True)
        return length * angles.cosines(features, head.kernel)

    return Classification("cosine", loss, logits, init_state=count_steps)
