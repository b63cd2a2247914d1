"""Post-hoc calibrations: inference rules that spare rare classes without any training.

Each changes how the scores of a trained softmax or cosine classifier are made of its logits, so `calibrated` gives the
same `Classification` with other logits or another activation. Logits are [N, K + 1], background last; background is
never calibrated.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2am_jax.checks import NonNegative, Settings, Share, one_of
from c2am_jax.losses.classification import Classification, Head, linear_logits
from c2am_jax.losses.statistics import ClassStatistics

CALIBRATIONS = ("none", "tau_norm", "norcal", "logn", "fracal")
STD_FLOOR = 1e-5  # of a class's logits, LogN


@dataclasses.dataclass(frozen=True)
class CalibrationSettings(Settings):
    """`config.calibration`, read by eval.py only.

    Attributes:
      name: one of `CALIBRATIONS`.
      tau: of tau-norm, 0 (nothing) to 1 (all weights of one length); to be chosen on held-out training images.
      gamma: of NorCal, the power of the image counts.
      power: of FRACAL, the power of the fractal dimensions.
    """

    name: Annotated[str, one_of(*CALIBRATIONS)] = "none"
    tau: Share = 0.5
    gamma: NonNegative = 0.6
    power: NonNegative = 2.0


@dataclasses.dataclass(frozen=True)
class LogitStatistics:
    """Mean and standard deviation of each logit over sampled RoIs of training images, [K + 1] each."""

    mean: np.ndarray
    std: np.ndarray


def tau_norm(kernel: Float[Array, "d c"], *, tau: float, classes: int) -> Float[Array, "d c"]:
    """``W_c / |W_c|^tau`` for the first `classes` columns (Kang et al., ICLR 2020); other columns stay."""
    square = jnp.sum(kernel * kernel, 0)
    factor = jnp.where(square > 0, square, 1.0) ** (-tau / 2)
    return kernel * jnp.where(jnp.arange(kernel.shape[1]) < classes, factor, 1.0)


def _with_background(foreground: Float[Array, " k"], background: float) -> Float[Array, " k1"]:
    return jnp.append(foreground, jnp.asarray(background, foreground.dtype))


def norcal_scores(
    logits: Float[Array, "n k1"], image_count: Float[Array, " k"], *, gamma: float
) -> Float[Array, "n k1"]:
    """``exp(z_c) / N_c^gamma``, background ``exp(z_b)``, normalised (NorCal, Pan et al., NeurIPS 2021)."""
    shift = _with_background(gamma * jnp.log(jnp.maximum(image_count, 1.0)), 0.0)
    return jax.nn.softmax(logits - shift, axis=-1)


def logn_logits(
    logits: Float[Array, "n k1"], mean: Float[Array, " k1"], std: Float[Array, " k1"]
) -> Float[Array, "n k1"]:
    """``(z_c - (mean_c - min mean)) / std_c`` (LogN, Zhao et al., IJCV 2024; rules of its `LogitNormHead`)."""
    own = mean[:-1]
    shift = _with_background(own - own.min(), 0.0)
    return (logits - shift) / _with_background(jnp.maximum(std[:-1], STD_FLOOR), 1.0)


def fracal_scores(
    logits: Float[Array, "n k1"], image_frequency: Float[Array, " k"], dimension: Float[Array, " k"], *, power: float
) -> Float[Array, "n k1"]:
    """FRACAL for softmax heads (Alexandridis et al., CVPR 2025; rules of its `fracal_bbox_head`).

    Logits get ``-log10(K f_c)``, probabilities are divided by the power of the class's fractal dimension and
    normalised again. The released code takes the logarithm to base 10 although the softmax is natural.

    Args:
      logits: [N, K + 1].
      image_frequency: share of the training images that hold each class.
      dimension: fractal dimension of each class's object centres, 1 to 2 (`data.fractal`).
      power: lambda of the paper.
    """
    classes = dimension.shape[0]
    shift = -jnp.log10(jnp.maximum(image_frequency, 1e-9) * classes) - power * jnp.log(dimension)
    return jax.nn.softmax(logits + _with_background(shift, 0.0), axis=-1)


def calibrated(
    method: Classification,
    settings: CalibrationSettings,
    *,
    statistics: ClassStatistics | None = None,
    logit_statistics: LogitStatistics | None = None,
    dimension: np.ndarray | None = None,
) -> Classification:
    """The same classifier with a calibrated inference rule.

    Args:
      method: that trained the classifier.
      settings: which calibration.
      statistics: of the training set, for all but LogN.
      logit_statistics: for LogN.
      dimension: fractal dimensions [K], for FRACAL.

    Raises:
      ValueError: scores that are no softmax over K + 1 classes, tau-norm of a classifier whose scores do not depend on
        the length of its weights, or something that the calibration needs is not given.
    """
    name = settings.name
    if name == "none":
        return method
    if method.own_activation is not None or method.extra_outputs:
        raise ValueError(f"calibration {name!r} is for scores by softmax over the classes and background")
    needed = {"logn": logit_statistics, "fracal": dimension}.get(name, statistics)
    if needed is None or (name == "fracal" and statistics is None):
        raise ValueError(f"calibration {name!r} is not given the statistics that it needs")

    def activate(logits):
        constant = functools.partial(jnp.asarray, dtype=logits.dtype)
        if name == "norcal":
            return norcal_scores(logits, constant(statistics.image_count), gamma=settings.gamma)
        if name == "fracal":
            frequency = constant(statistics.image_frequency)
            return fracal_scores(logits, frequency, constant(dimension), power=settings.power)
        mean, std = constant(logit_statistics.mean), constant(logit_statistics.std)
        return jax.nn.softmax(logn_logits(logits, mean, std), axis=-1)

    if name != "tau_norm":
        return dataclasses.replace(method, own_activation=activate)
    if method.own_logits is not None:
        raise ValueError(
            "calibration 'tau_norm' divides a class's weights by their length, for losses whose scores are inner "
            "products with them, such as softmax; this loss scores otherwise: take norcal, logn or fracal"
        )
    classes = len(statistics.image_count)

    def logits(features: jax.Array, head: Head):
        return linear_logits(features, tau_norm(head.kernel, tau=settings.tau, classes=classes), head.bias)

    return dataclasses.replace(method, own_logits=logits)
