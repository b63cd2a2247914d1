"""Each form of a convolution against the library's values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2am_jax.models import convolution
from c2am_jax.models.convolution import convolve
from c2am_jax.models.layers import Conv


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


@pytest.mark.parametrize("size", [1, 3])
def test_the_forms_of_strided_convolutions_for_tpus_equal_the_library_ones(size):
    conv = Conv(3, 4, size, stride=2, bias=False, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 8, 12, 3), (2, 4, 6, 4)))
    form = conv._by_columns if size == 1 else conv._by_phases
    own, own_back = jax.vjp(form, x, conv.kernel[...])
    expected, back = jax.vjp(conv._by_window, x, conv.kernel[...])
    np.testing.assert_allclose(own, expected, atol=1e-5)
    for a, b in zip(own_back(gradient), back(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_strided_convolution_of_an_odd_map_has_no_phases():
    conv = Conv(3, 4, 3, stride=2, bias=False, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 12, 3)), jnp.float32)
    np.testing.assert_array_equal(conv._by_phases(x, conv.kernel[...]), conv._by_window(x, conv.kernel[...]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_columns_are_chosen_without_loss_of_a_bit(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 7, 5)), dtype)
    np.testing.assert_array_equal(convolution.every_nth_column(x, 1, 3), x[:, :, 1::3])


def test_the_gradient_of_a_bias_is_the_sum_over_positions():
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    ours = jax.vjp(convolution.plus_bias, gradient, jnp.ones(5))[1](gradient)
    np.testing.assert_array_equal(ours[0], gradient)
    for found in (ours[1], convolution.sum_by_product(gradient)):
        np.testing.assert_allclose(found, gradient.sum((0, 1, 2)), rtol=1e-5)
