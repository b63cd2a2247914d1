"""The 3x3 convolution against the library's gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.models import convolution
from c2am_jax.models.convolution import convolve


def library(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("piece", [1 << 19, 4 * 63 * 3, 4 * 21, 1])
@pytest.mark.parametrize("most", [32, 1000])
def test_value_and_gradients_equal_the_library_ones_for_any_pieces(monkeypatch, piece, most):
    """Whole batch, three images, some rows of an image, a row; and a bound on the number of pieces."""
    monkeypatch.setattr(convolution, "PIECE", piece)
    monkeypatch.setattr(convolution, "MOST_PIECES", most)
    rng = np.random.default_rng(0)
    x, kernel, weight = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 9, 7, 3), (3, 3, 3, 4), (5, 9, 7, 4))
    )
    np.testing.assert_allclose(convolve(x, kernel), library(x, kernel), atol=1e-5)
    own = jax.grad(lambda *args: (convolve(*args) * weight).sum(), argnums=(0, 1))(x, kernel)
    expected = jax.grad(lambda *args: (library(*args) * weight).sum(), argnums=(0, 1))(x, kernel)
    for a, b in zip(own, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
