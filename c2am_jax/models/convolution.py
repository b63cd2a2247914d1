"""The 3x3 convolution, with a weight gradient that stays in the cache of a CPU core.

XLA computes the weight gradient of a convolution as one whose window is the whole image. On CPU that is 2 to
3 times slower than the forward pass once the operands outgrow the cache; a sum over pieces of the batch or of
the image's rows is as fast as the forward pass.
"""

import functools

import jax
import jax.numpy as jnp

from c2am_jax.ops.platforms import by_platform

PIECE = 1 << 19  # elements of the output's gradient that are taken at once
MOST_PIECES = 32  # each is a convolution in the program, so large batches take larger pieces


def _apply(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, C] with kernel [3, 3, C, C'], stride 1 and padding 1 -> [B, H, W, C']."""
    return _apply(x, kernel, 1)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(residuals, gradient):
    x, kernel = residuals
    (input_gradient,) = jax.linear_transpose(lambda x: _apply(x, kernel, 1), x)(gradient)
    weight_gradient = by_platform(
        x, kernel, gradient, cpu=_in_pieces, default=functools.partial(_weight_gradient, padding=1)
    )
    return input_gradient, weight_gradient


convolve.defvjp(_forward, _backward)


def _weight_gradient(x: jax.Array, kernel: jax.Array, gradient: jax.Array, padding: int = 0) -> jax.Array:
    return jax.linear_transpose(lambda kernel: _apply(x, kernel, padding), kernel)(gradient)[0]


def _in_pieces(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    batch, height, width, channels = gradient.shape
    cells = max(PIECE // channels, -(-batch * height * width // MOST_PIECES))
    images = max(1, cells // (height * width))
    rows = height if images > 1 else max(1, min(height, cells // width))
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        _weight_gradient(padded[b : b + images, r : r + rows + 2], kernel, gradient[b : b + images, r : r + rows])
        for b in range(0, batch, images)
        for r in range(0, height, rows)
    )
