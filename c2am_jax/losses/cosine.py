"""The cosine family: cosine softmax (Eq. 5), C2AM (Eqs. 6-7), fixed margin, CosFace, ArcFace, SphereFace (Table 1).

All take features x [N, D], the classifier kernel W [D, C] (column j is W_j, the last column is background) and
integer labels [N], and return one loss per sample [N]. With unit vectors, c_j = cos(theta_j) = x.W_j / (|x||W_j|).

Numerics: no arccos anywhere, cos(theta + m) = c cos(m) - sqrt(1 - c^2) sin(m) with 1 - c^2 floored (1e-6 in
float32, the rounding error of a 1024-term dot product; 1e-15 in float64); norms floored at 1e-6 before division
(float64: 1e-12); everything in float32 at least, whatever the type of the inputs. Margins carry no gradient.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from c2am_jax.losses.softmax import log_odds_against, softmax_cross_entropy
from c2am_jax.ops.varying import vary_like

Features = Num[Array, "n d"]
Kernel = Num[Array, "d c"]
Labels = Int[Array, "n"]
PerSample = Float[Array, "n"]

BACKGROUND_RULES = ("all", "foreground_only")
C2AM_WRAPS = ("literal", "clip", "monotone")
ARCFACE_WRAPS = ("fallback", "easy", "literal")
NORM_FLOOR_IN_MARGIN = 1e-6


def _choose(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def _check_labels(labels: jax.Array) -> None:
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be an integer vector [N], got {labels.dtype} {labels.shape}: soft or smoothed labels have "
            "no margin"
        )


def _precise(x: jax.Array) -> jax.Array:
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _is_double(x: jax.Array) -> bool:
    return x.dtype == jnp.float64


def _normalise(x: jax.Array, axis: int) -> jax.Array:
    """Unit vectors; differentiable at zero, where the plain norm's gradient is NaN."""
    floor = 1e-24 if _is_double(x) else 1e-12
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis, keepdims=True), floor))


def cosines(features: Features, kernel: Kernel) -> Float[Array, "n c"]:
    """cos(theta_j) between each feature and each class weight."""
    features, kernel = _precise(features), _precise(kernel)
    return jnp.matmul(_normalise(features, -1), _normalise(kernel, 0), precision=jax.lax.Precision.HIGHEST)


def cosine_logits(features: Features, kernel: Kernel, *, scale: float = 30.0) -> Float[Array, "n c"]:
    """S cos(theta_j), the logits of inference and of Eq. 5: [N, C]."""
    return scale * cosines(features, kernel)


def _sines(c: jax.Array) -> jax.Array:
    """sqrt(1 - c^2), floored; below the floor the gradient is zero, which keeps 0 * inf out of the backward pass."""
    return jnp.sqrt(jnp.maximum(1 - c * c, 1e-15 if _is_double(c) else 1e-6))


def _at_label(x: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, labels[:, None], 1)[:, 0]


def _replace_at_label(x: jax.Array, labels: jax.Array, values: jax.Array) -> jax.Array:
    is_label = jnp.arange(x.shape[1])[None] == labels[:, None]
    return jnp.where(is_label, values[:, None], x)


def cosine_softmax_loss(features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0) -> PerSample:
    """Eq. 5 (NormFace with a constant scale): cross-entropy of s cos(theta)."""
    _check_labels(labels)
    return softmax_cross_entropy(cosine_logits(features, kernel, scale=scale), labels)


def c2am_margins(
    kernel: Kernel,
    labels: Labels,
    *,
    alpha: float = 0.5,
    background: str = "all",
    max_margin: float = math.pi / 2,
) -> Float[Array, "n c"]:
    """Eq. 7: m_ij = max(0, alpha / pi * ln(|W_i| / |W_j|)) for each sample's label i and each class j, in radians.

    Args:
      kernel: W [D, C]; its norms are floored at 1e-6 and carry no gradient.
      labels: [N].
      alpha: the paper's alpha; 0 switches the margin off.
      background: "all" lets background (the last class) take part as label and as competitor;
        "foreground_only" gives samples of background no margins.
      max_margin: cap in radians; pi / 2 is out of reach below a norm ratio of 19,334 at alpha 0.5.
    """
    _choose("background", background, BACKGROUND_RULES)
    _check_labels(labels)
    log_norms = _log_norms(kernel)
    return jnp.clip((alpha / math.pi) * _log_ratios(log_norms, labels, background), 0, max_margin)


def _log_norms(kernel: jax.Array) -> jax.Array:
    """Natural logarithm of |W_j|: [C], without gradient."""
    kernel = jax.lax.stop_gradient(_precise(kernel))
    return 0.5 * jnp.log(jnp.maximum(jnp.sum(kernel * kernel, 0), NORM_FLOOR_IN_MARGIN**2))


def _log_ratios(log_norms: jax.Array, labels: jax.Array, background: str) -> jax.Array:
    """ln(|W_i| / |W_j|) of each sample's label i: [N, C], exactly 0 for the label itself."""
    ratios = log_norms[labels][:, None] - log_norms[None]
    if background == "foreground_only":
        ratios = jnp.where((labels == len(log_norms) - 1)[:, None], 0, ratios)
    return ratios


def _margin_cos_sin(
    log_norms: jax.Array, labels: jax.Array, alpha: jax.Array, background: str, max_margin: float
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of `c2am_margins`: m_ij = u_i - u_j, so C cosines and sines of u do instead of N C of them."""
    ratios = _log_ratios(log_norms, labels, background)
    angles = (alpha / math.pi) * log_norms
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    own_cos, own_sin = cos[labels][:, None], sin[labels][:, None]
    none, capped = ratios * alpha <= 0, (alpha / math.pi) * ratios >= max_margin
    cap = 0.0 if math.isinf(max_margin) else max_margin  # no margin reaches an infinite cap

    def limited(inside, at_zero, at_cap):
        return jnp.where(none, at_zero, jnp.where(capped, at_cap, inside))

    return (
        limited(own_cos * cos + own_sin * sin, 1.0, math.cos(cap)),
        limited(own_sin * cos - own_cos * sin, 0.0, math.sin(cap)),
    )


def _cos_of_sum(c: jax.Array, cos_m: jax.Array | float, sin_m: jax.Array | float, wrap: str) -> jax.Array:
    """cos(theta + m); what to do beyond theta + m = pi is `wrap`."""
    value = c * cos_m - _sines(c) * sin_m
    if wrap == "literal":
        return value
    wrapped = c < -cos_m  # theta > pi - m, as the cosine falls on [0, pi]
    return jnp.where(wrapped, -1.0 if wrap == "clip" else -2.0 - value, value)


def c2am_loss(
    features: Features,
    kernel: Kernel,
    labels: Labels,
    *,
    scale: float = 30.0,
    alpha: float = 0.5,
    background: str = "all",
    wrap: str = "literal",
    max_margin: float = math.pi / 2,
) -> PerSample:
    """C2AM (Eqs. 6-7): competitors of a sample of class i are moved away by the category-aware angular margin m_ij.

    ``L = -log(e^{s cos theta_i} / (e^{s cos theta_i} + sum_{j != i} e^{s cos(theta_j + m_ij)}))``. As m_ii = 0, one
    expression covers the label's column too. The margin is detached, as in the paper.

    Args:
      features: x [N, D], any float type; computed in float32 (float64 if given).
      kernel: W [D, C], background last.
      labels: integers [N].
      scale: s.
      alpha, background, max_margin: see `c2am_margins`.
      wrap: beyond theta + m = pi: "literal" is the formula, "clip" stays at -1 (no gradient), "monotone" goes on
        falling as -2 - cos(theta + m).

    Raises:
      TypeError: labels that are not an integer vector (label smoothing and mixup have no margin).
      ValueError: an unknown `background` or `wrap`.
    """
    _choose("wrap", wrap, C2AM_WRAPS)
    _choose("background", background, BACKGROUND_RULES)
    _check_labels(labels)
    c = cosines(features, kernel)
    scale, alpha = (vary_like(jnp.asarray(value, c.dtype), c) for value in (scale, alpha))
    return _c2am_of_cosines(c, _log_norms(kernel), labels, scale, alpha, background, wrap, max_margin)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _c2am_of_cosines(c, log_norms, labels, scale, alpha, background, wrap, max_margin):
    """The loss [N] of cosines [N, C]. Its gradient keeps only the cosines and computes the rest again.

    That costs less than reading it back: with 4096 samples the step from cosine softmax to C2AM is 8 % instead of 13 %
    of the loss's time on two CPU cores, and half of the memory.
    """
    return _c2am_forward(c, log_norms, labels, scale, alpha, background, wrap, max_margin)[0]


def _c2am_forward(c, log_norms, labels, scale, alpha, background, wrap, max_margin):
    logits = scale * _cos_of_sum(c, *_margin_cos_sin(log_norms, labels, alpha, background, max_margin), wrap)
    odds = log_odds_against(logits, labels)
    return jax.nn.softplus(odds), (c, log_norms, labels, scale, alpha, odds, _at_label(logits, labels))


def _c2am_backward(background, wrap, max_margin, residuals, gradient):
    c, log_norms, labels, scale, alpha, odds, own = residuals
    cos_m, sin_m = _margin_cos_sin(log_norms, labels, alpha, background, max_margin)
    moved = _cos_of_sum(c, cos_m, sin_m, wrap)
    others = jax.nn.sigmoid(odds)[:, None]  # 1 - p of the label
    competitors = others * jnp.exp(scale * moved - own[:, None] - odds[:, None])
    by_logit = gradient[:, None] * _replace_at_label(competitors, labels, -others[:, 0])
    floor = 1e-15 if _is_double(c) else 1e-6
    slope = cos_m + jnp.where(1 - c * c > floor, c / _sines(c), 0) * sin_m
    if wrap != "literal":
        slope = jnp.where(c < -cos_m, 0.0 if wrap == "clip" else -slope, slope)
    return scale * by_logit * slope, None, None, (by_logit * moved).sum(), None


_c2am_of_cosines.defvjp(_c2am_forward, _c2am_backward)


def fixed_margin_loss(
    features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0, margin: float = 0.2
) -> PerSample:
    """Table 5's "Fixed": every competitor, background included, gets the same angular margin in radians."""
    _check_labels(labels)
    c = cosines(features, kernel)
    logits = _replace_at_label(
        _cos_of_sum(c, math.cos(margin), math.sin(margin), "literal"), labels, _at_label(c, labels)
    )
    return softmax_cross_entropy(scale * logits, labels)


def ldam_margins(instance_count: np.ndarray, max_margin: float = 0.5) -> np.ndarray:
    """LDAM's margins (Cao et al., NeurIPS 2019, Eq. 12): proportional to n^(-1/4), `max_margin` for the rarest: [K]."""
    return max_margin * (instance_count / instance_count.min()) ** -0.25


def ldam_loss(
    features: Features, kernel: Kernel, labels: Labels, margins: Float[Array, "c"], *, scale: float = 30.0
) -> PerSample:
    """LDAM: the label's logit is s (cos(theta) - m_label); `margins` [C], background's 0 (our choice)."""
    _check_labels(labels)
    return ldam_of_cosines(cosines(features, kernel), labels, margins, scale=scale)


def ldam_of_cosines(
    c: Float[Array, "n c"], labels: Labels, margins: Float[Array, "c"], *, scale: float = 30.0
) -> PerSample:
    """LDAM, given the cosines [N, C]."""
    return softmax_cross_entropy(scale * _replace_at_label(c, labels, _at_label(c, labels) - margins[labels]), labels)


def cosface_loss(
    features: Features, kernel: Kernel, labels: Labels, *, scale: float = 30.0, margin: float = 0.35
) -> PerSample:
    """CosFace (Table 1): the label's logit is s (cos(theta) - m)."""
    _check_labels(labels)
    c = cosines(features, kernel)
    return softmax_cross_entropy(scale * _replace_at_label(c, labels, _at_label(c, labels) - margin), labels)


def arcface_loss(
    features: Features,
    kernel: Kernel,
    labels: Labels,
    *,
    scale: float = 30.0,
    margin: float = 0.5,
    wrap: str = "fallback",
) -> PerSample:
    """ArcFace (Table 1): the label's logit is s cos(theta + m).

    `wrap` beyond theta + m = pi: "fallback" uses cos(theta) - m sin(m) there, "easy" applies the margin only where
    cos(theta) > 0, "literal" is the formula.
    """
    _choose("wrap", wrap, ARCFACE_WRAPS)
    _check_labels(labels)
    c = cosines(features, kernel)
    target = _at_label(c, labels)
    moved = _cos_of_sum(target, math.cos(margin), math.sin(margin), "literal")
    if wrap == "fallback":
        moved = jnp.where(target > math.cos(math.pi - margin), moved, target - margin * math.sin(margin))
    elif wrap == "easy":
        moved = jnp.where(target > 0, moved, target)
    return softmax_cross_entropy(scale * _replace_at_label(c, labels, moved), labels)


def sphereface_lambda(
    step: Num[Array, ""] | int,
    *,
    base: float = 1000.0,
    gamma: float = 0.12,
    power: float = 1.0,
    minimum: float = 5.0,
) -> Float[Array, ""]:
    """SphereFace's annealing: max(minimum, base (1 + gamma step)^-power)."""
    return jnp.maximum(minimum, base * (1 + gamma * jnp.asarray(step, jnp.float32)) ** -power)


def sphereface_loss(
    features: Features,
    kernel: Kernel,
    labels: Labels,
    *,
    margin: int = 4,
    lam: float | Num[Array, ""] = 5.0,
) -> PerSample:
    """SphereFace (A-softmax, Table 1): z_j = |x| cos(theta_j), z_i = |x| (lam cos(theta_i) + psi(theta_i)) / (1 + lam).

    psi(theta) = (-1)^k cos(m theta) - 2k on [k pi / m, (k + 1) pi / m], by the Chebyshev polynomial of cos(theta).
    `margin` is m, an integer from 1; `lam` is the annealed weight of the plain cosine (`sphereface_lambda`).
    """
    if int(margin) != margin or margin < 1:
        raise ValueError(f"margin must be an integer from 1, not {margin!r}")
    _check_labels(labels)
    features, kernel = _precise(features), _precise(kernel)
    squared = jnp.sum(features * features, -1)
    floor = 1e-24 if _is_double(features) else 1e-12
    length = jnp.sqrt(jnp.maximum(squared, floor))
    c = cosines(features, kernel)
    target = _at_label(c, labels)
    previous, multiple = jnp.ones_like(target), target
    for _ in range(int(margin) - 1):
        previous, multiple = multiple, 2 * target * multiple - previous
    k = sum((target < math.cos(i * math.pi / margin)).astype(target.dtype) for i in range(1, int(margin)))
    psi = (1 - 2 * (k % 2)) * multiple - 2 * k
    logits = _replace_at_label(c, labels, (lam * target + psi) / (1 + lam))
    return softmax_cross_entropy(length[:, None] * logits, labels)
