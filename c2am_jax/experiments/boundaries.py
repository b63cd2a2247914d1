"""Decision boundaries in two dimensions, found on the package's own losses (Figure 2), and Table 1 as a picture.

    python -m c2am_jax.experiments.boundaries --out DIR [--alpha 0.5]

A sample of class i is on the right side of class j in training if its loss against j alone is below ln 2, where both
have probability 1/2. `boundary_angle` looks for that point on the arc from W_i to W_j; `ANALYTIC` has the formulas.
Below, t is the angle between W_i and W_j, and angles are in radians.
"""

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax import losses
from c2am_jax.errors import UserError, guarded
from c2am_jax.experiments.figures import COLOURS, figure
from c2am_jax.losses.classification import linear_logits
from c2am_jax.storage import check_output

PIXELS = 240  # even: no pixel lies on a boundary through the middle
SEARCHED = 2001  # angles per round of the search
SCALE = 30.0  # s: it moves no boundary, both sides of the equation have it
CHEBYSHEV_MARGIN = 4  # SphereFace's m
COSINE_MARGIN = 0.2  # CosFace's m; the paper's Table 1 leaves its value open
ARC_MARGIN = 0.2  # ArcFace's m, radians


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of Table 1.

    Attributes:
      title: its name.
      formula: the loss, in matplotlib's mathtext.
      loss: ``(features [N, D], kernel [D, C], labels [N]) -> [N]``, of `c2am_jax.losses`.
      analytic: ``(t, |W_i|, |W_j|) -> angle`` from W_i of the boundary of a sample of class i against j.
    """

    title: str
    formula: str
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    analytic: Callable[[float, float, float], float]


def _inner_product(features: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
    no_bias = jnp.zeros(kernel.shape[1], features.dtype)
    return losses.softmax_cross_entropy(linear_logits(features, kernel, no_bias), labels)


def methods(alpha: float) -> dict[str, Method]:
    """The rows of Table 1 by name, C2AM with this `alpha`."""
    denominator = r"{%s + \sum_{j \neq i} %s}"
    others = r"e^{s\,\cos\theta_j}"

    def formula(own: str, other: str = others) -> str:
        return r"$-\log\frac{%s}%s$" % (own, denominator % (own, other))  # noqa: UP031 braces are LaTeX's

    return {
        "ce": Method(
            "Cross-entropy",
            formula(r"e^{W_i^{T} x}", r"e^{W_j^{T} x}"),
            _inner_product,
            lambda t, own, other: math.atan2(own - other * math.cos(t), other * math.sin(t)),
        ),
        "normface": Method(
            "NormFace (cosine)",
            formula(r"e^{s\,\cos\theta_i}"),
            functools.partial(losses.cosine_softmax_loss, scale=SCALE),
            lambda t, own, other: t / 2,
        ),
        "cosface": Method(
            f"CosFace, m = {COSINE_MARGIN}",
            formula(r"e^{s(\cos\theta_i - m)}"),
            functools.partial(losses.cosface_loss, scale=SCALE, margin=COSINE_MARGIN),
            lambda t, own, other: t / 2 - math.asin(COSINE_MARGIN / (2 * math.sin(t / 2))),
        ),
        "arcface": Method(
            f"ArcFace, m = {ARC_MARGIN}",
            formula(r"e^{s\,\cos(\theta_i + m)}"),
            functools.partial(losses.arcface_loss, scale=SCALE, margin=ARC_MARGIN),
            lambda t, own, other: (t - ARC_MARGIN) / 2,
        ),
        "sphereface": Method(
            f"SphereFace, m = {CHEBYSHEV_MARGIN}",
            formula(r"e^{|x|\,\psi(m\theta_i)}", r"e^{|x|\,\cos\theta_j}"),
            functools.partial(losses.sphereface_loss, margin=CHEBYSHEV_MARGIN, lam=0.0),
            lambda t, own, other: t / (CHEBYSHEV_MARGIN + 1),
        ),
        "c2am": Method(
            rf"C2AM, $\alpha$ = {alpha:g}",
            formula(r"e^{s\,\cos\theta_i}", r"e^{s\,\cos(\theta_j + m_{ij})}"),
            functools.partial(losses.c2am_loss, scale=SCALE, alpha=alpha),
            lambda t, own, other: (t + max(0.0, alpha / math.pi * math.log(own / other))) / 2,
        ),
    }


def directions(angles: np.ndarray) -> np.ndarray:
    """Unit vectors: [N] -> [N, 2]."""
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def excess(method: Method, points: np.ndarray, kernel: np.ndarray, own: int, other: int) -> np.ndarray:
    """Loss minus ln 2 of samples of class `own` against `other` alone: below 0 on the right side. [N, 2] -> [N]."""
    pair = jnp.asarray(kernel[:, [own, other]], jnp.float32)
    labels = jnp.zeros(len(points), jnp.int32)
    return np.asarray(method.loss(jnp.asarray(points, jnp.float32), pair, labels)) - math.log(2)


def boundary_angle(method: Method, kernel: np.ndarray, own: int, other: int) -> float:
    """Angle from W_own towards W_other at which samples of `own` start to lose.

    Negative if they lose at W_own itself, as the smaller norm does in an inner product; NaN if they win everywhere.
    """
    start = math.atan2(kernel[1, own], kernel[0, own])
    turn = math.atan2(kernel[1, other], kernel[0, other]) - start
    turn = (turn + math.pi) % (2 * math.pi) - math.pi  # the short way

    low, high = -math.pi / 2, abs(turn)
    for _ in range(2):
        angles = np.linspace(low, high, SEARCHED)
        loses = excess(method, directions(start + math.copysign(1, turn) * angles), kernel, own, other) >= 0
        if not loses[-1]:
            return math.nan
        last = np.flatnonzero(~loses)[-1]  # the arc's end belongs to the other class: the last change of hands counts
        low, high = angles[last], angles[last + 1]
    return float(low + high) / 2


def regions(method: Method, points: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Whether each point, as a training sample of each class, wins against every other: bool [N, C]."""
    classes = range(kernel.shape[1])
    return np.stack(
        [
            np.all([excess(method, points, kernel, own, other) < 0 for other in classes if other != own], axis=0)
            for own in classes
        ],
        -1,
    )


def weights(degrees: Sequence[float], norms: Sequence[float]) -> np.ndarray:
    """Kernel [2, C] of class weights at these angles and norms."""
    return (directions(np.radians(degrees)) * np.asarray(norms)[:, None]).T


TWO_CLASSES = weights((130, 50), (1.3, 0.325))
THREE_CLASSES = weights((95, 335, 215), (1.3, 0.65, 0.2))


def draw_regions(axes: Any, method: Method, kernel: np.ndarray) -> None:
    """Regions of training samples as colours (mixed where two overlap, white where none is), boundaries as lines."""
    from matplotlib.colors import to_rgb

    extent = 1.6
    line = np.linspace(-extent, extent, PIXELS)
    points = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    inside = regions(method, points, kernel)
    colours = np.array([to_rgb(colour) for colour in COLOURS[: kernel.shape[1]]])
    mixed = inside @ colours / np.maximum(inside.sum(1, keepdims=True), 1)
    pale = np.where(inside.any(1, keepdims=True), 1 - 0.45 * (1 - mixed), 1.0)
    image = pale.reshape(PIXELS, PIXELS, 3)
    axes.imshow(image, origin="lower", extent=(-extent, extent, -extent, extent), interpolation="nearest")
    for own in range(kernel.shape[1]):
        for other in range(kernel.shape[1]):
            if own != other:
                _draw_boundary(axes, method, kernel, own, other, extent)
        x, y = kernel[:, own]
        arrow = {"arrowstyle": "-|>", "color": COLOURS[own], "lw": 2.5, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(x, y), xytext=(0, 0), arrowprops=arrow)
        label = kernel[:, own] * (1 + 0.14 / np.linalg.norm(kernel[:, own]))
        axes.text(*label, f"$W_{own + 1}$", color=COLOURS[own], ha="center", va="center", fontsize=11)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[], aspect="equal")


def _draw_boundary(axes: Any, method: Method, kernel: np.ndarray, own: int, other: int, extent: float) -> None:
    norms = np.linalg.norm(kernel, axis=0)
    start = math.atan2(kernel[1, own], kernel[0, own])
    turn = (math.atan2(kernel[1, other], kernel[0, other]) - start + math.pi) % (2 * math.pi) - math.pi
    found = boundary_angle(method, kernel, own, other)
    if math.isnan(found):
        return
    for angle, style in (
        (found, {"color": COLOURS[own], "lw": 3, "alpha": 0.55}),
        (method.analytic(abs(turn), float(norms[own]), float(norms[other])), {"color": "black", "lw": 1, "ls": "--"}),
    ):
        end = 2 * extent * directions(np.array([start + math.copysign(1, turn) * angle]))[0]
        axes.plot([0, end[0]], [0, end[1]], **style)


def draw_figure_2(path: Path, alpha: float) -> None:
    """Inner product, cosine and C2AM for two classes (above) and three (below)."""
    table = methods(alpha)
    titles = ("Inner product", "Cosine", table["c2am"].title)
    with figure(path, 2, 3, (9.6, 6.6)) as axes:
        for row, kernel in enumerate((TWO_CLASSES, THREE_CLASSES)):
            for column, (name, title) in enumerate(zip(("ce", "normface", "c2am"), titles, strict=True)):
                draw_regions(axes[row, column], table[name], kernel)
                axes[row, column].set_title(title)


def draw_table_1(path: Path, alpha: float) -> None:
    """Every loss of Table 1 as its formula above its regions for two classes."""
    with figure(path, 2, 3, (11, 8.6)) as axes:
        for place, method in zip(axes.flat, methods(alpha).values(), strict=True):
            draw_regions(place, method, TWO_CLASSES)
            place.set_title(f"{method.title}\n{method.formula}", fontsize=14, linespacing=1.7, pad=24)


def angle_lines(alpha: float) -> list[str]:
    """The boundaries of the two-class picture, found and by formula, in degrees."""
    norms = np.linalg.norm(TWO_CLASSES, axis=0)
    t = math.acos(float(TWO_CLASSES[:, 0] @ TWO_CLASSES[:, 1] / norms.prod()))
    lines = [f"t = {math.degrees(t):.3f}, |W_1| = {norms[0]:g}, |W_2| = {norms[1]:g}; degrees from the label's W"]
    for method in methods(alpha).values():
        parts = []
        for own, other in ((0, 1), (1, 0)):
            found = math.degrees(boundary_angle(method, TWO_CLASSES, own, other))
            formula = math.degrees(method.analytic(t, float(norms[own]), float(norms[other])))
            parts.append(f"label {own + 1}: found {found:7.3f}, formula {formula:7.3f}")
        lines.append(f"{method.title.replace('$', '').replace(chr(92), ''):22} {'   '.join(parts)}")
    return lines


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="c2am_jax.experiments.boundaries", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write figure2.png and table1.png")
    parser.add_argument("--alpha", type=float, default=0.5, help="of C2AM (the paper: 0.5)")
    options = parser.parse_args(arguments)
    if not 0 <= options.alpha < math.inf:
        raise UserError(f"--alpha {options.alpha}: must be a number from 0")
    check_output("--out", options.out, folder=True)
    folder = Path(options.out)
    draw_figure_2(folder / "figure2.png", options.alpha)
    draw_table_1(folder / "table1.png", options.alpha)
    print("\n".join(angle_lines(options.alpha)))
    print(f"{folder / 'figure2.png'}, {folder / 'table1.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
