"""Read recorded loss vectors and run the losses on them."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax import losses

LONGTAIL = Path(__file__).resolve().parents[3] / "shared" / "reference" / "longtail_vectors.json"
PRECISIONS = pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 2e-4)])


def longtail_vector(name: str) -> dict[str, Any]:
    """A recorded vector of the other losses; skips the test where the file is not."""
    if not LONGTAIL.is_file():
        pytest.skip(f"the reference vectors are not at {LONGTAIL}")
    return next(v for v in json.loads(LONGTAIL.read_text())["vectors"] if v["id"] == name)


def generated(generator: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel rows W [C, D] and feature x [D] of a vector that names a generator instead of listing them."""

    def numbers(seed: int, count: int) -> np.ndarray:
        state, values = seed, []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            values.append(2 * ((state >> 11) * 2.0**-53) - 1)
        return np.array(values)

    c, d = generator["C"], generator["D"]
    w = numbers(generator["seed_W"], c * d).reshape(c, d)
    profile = np.ones(c)
    if generator["profile"].startswith("zipf_sqrt"):
        profile = 1 / np.sqrt(np.arange(c) + 1)
    if generator["profile"] == "zipf_sqrt_bg":
        profile[-1] = 4
    return w * profile[:, None], numbers(generator["seed_x"], d)


def loss_of(vector: dict[str, Any]):
    """The public function of a vector with its parameters: (features, kernel, labels) -> [N]."""
    kind, uncapped = vector["loss_type"], "huge_norm_ratio" in vector["id"]
    return _loss(kind, tuple(sorted(vector["params"].items())), uncapped)


@functools.cache  # one function, so one compilation, for all vectors that differ in numbers only
def _loss(kind: str, parameters: tuple, uncapped: bool):
    given = dict(parameters)
    names = {"s": "scale", "alpha": "alpha", "m": "margin", "lambda": "lam"}
    options = {names[key]: value for key, value in given.items() if key in names}
    if "lam" in options:
        options["lam"] = float(options["lam"])
    if kind == "c2am":
        options["wrap"] = given.get("wrap", "literal")
        if uncapped:
            options["max_margin"] = math.inf
    if kind == "arcface":
        options["wrap"] = given["mode"]
    function = {
        "cosine": losses.cosine_softmax_loss,
        "c2am": losses.c2am_loss,
        "fixed_margin": losses.fixed_margin_loss,
        "cosface": losses.cosface_loss,
        "arcface": losses.arcface_loss,
        "sphereface": losses.sphereface_loss,
    }[kind]
    return lambda features, kernel, labels: function(features, kernel, labels, **options)


def value_and_gradients(loss, x: np.ndarray, w: np.ndarray, label: int, dtype) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, dL/dx [D] and dL/dW rows [C, D] of one sample, jitted."""

    value, (dx, dw) = _jitted(loss)(jnp.asarray(x, dtype), jnp.asarray(w, dtype), jnp.asarray([label]))
    return float(value), np.asarray(dx), np.asarray(dw)


@functools.cache
def _jitted(loss):
    def scalar(features, kernel, labels):
        return loss(features[None], kernel.T, labels)[0]

    return jax.jit(jax.value_and_grad(scalar, argnums=(0, 1)))
