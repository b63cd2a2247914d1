"""Convolutions in the form that each platform takes fast.

The 3x3 convolution has a weight gradient that stays in the cache of a CPU core: XLA computes it as a convolution whose
window is the whole image, 2 to 3 times slower on CPU than the forward pass once the operands outgrow the cache; a sum
over pieces of the batch or of the image's rows is as fast as the forward pass.

A TPU moves columns slowly, has no fast way for three channels, and runs the input's gradient of a strided convolution
over a map that is mostly zeros. There columns are chosen by products with matrices of 0 and 1, which are exact.
"""

import functools

import jax
import jax.numpy as jnp

from c2am_jax.ops.platforms import by_platform
from c2am_jax.ops.varying import vary_like

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


def every_nth_column(x: jax.Array, first: int, step: int) -> jax.Array:
    """``x[:, :, first::step]`` of [B, H, W, C], by a product."""
    width = x.shape[2]
    chosen = jnp.arange(first, width, step)[:, None] == jnp.arange(width)
    return _columns(x, chosen)


def _columns(x: jax.Array, chosen: jax.Array) -> jax.Array:
    """[B, H, W, C] and a matrix [V, W] of 0 and 1 -> [B, H, V, C]."""
    return jnp.einsum("vw,bhwc->bhvc", chosen.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def halved_by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with a kernel [3, 3, C, C'], stride 2 and padding 1, of maps with even sides.

    It runs as one of 2x2 with stride 1 on the odd and even rows and columns side by side.
    """
    phases = [every_nth_column(x[:, row::2], column, 2) for row in (1, 0) for column in (1, 0)]
    none = jnp.zeros_like(kernel[0])
    rows = [jnp.stack([kernel[0], kernel[2]]), jnp.stack([none, kernel[1]])]  # of odd, of even rows [2, 3, C, C']
    none = jnp.zeros_like(rows[0][:, 0])
    taps = [[jnp.stack([r[:, 0], r[:, 2]], 1), jnp.stack([none, r[:, 1]], 1)] for r in rows]
    return jax.lax.conv_general_dilated(
        jnp.concatenate(phases, -1),
        jnp.concatenate([tap for row in taps for tap in row], 2),
        (1, 1),
        ((1, 0), (1, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def stem_by_products(x: jax.Array, kernel: jax.Array, shift: jax.Array) -> jax.Array:
    """A ResNet's stem: convolution with stride 2 and padding 3, relu, 3x3 maximum with stride 2 and padding 1.

    Four pixels of the convolution become one of the result. All four are products of the 12x12 pixels around them,
    side by side for the maximum to compare.

    Args:
      x: images [B, H, W, 3]; H and W are multiples of 4.
      kernel: [7, 7, 3, C].
      shift: [C], added before the relu.

    Returns:
      [B, H / 4, W / 4, C].
    """
    (batch, height, width, channels), features = x.shape, kernel.shape[-1]
    rows, columns = height // 4, width // 4
    # The 12 columns around each block, zero beyond the image.
    order = 4 * jnp.arange(columns) - 4 + jnp.arange(12)[:, None]
    x = _columns(x, order.reshape(-1, 1) == jnp.arange(width))
    x = x.reshape(batch, rows, 4, 12, columns, channels).transpose(0, 1, 4, 2, 3, 5)
    x = jnp.pad(x.reshape(batch, rows, columns, -1), ((0, 0), (1, 1), (0, 0), (0, 0)))
    # The 7 taps of the convolution's pixels 0 and 1 of a block begin at the pixels 1 and 3 of these 12.
    places = [[jnp.pad(kernel, ((i, 5 - i), (j, 5 - j), (0, 0), (0, 0))) for j in (1, 3)] for i in (1, 3)]
    kernel = jnp.stack([jnp.stack(row, -2) for row in places], -3)  # [12, 12, 3, 2, 2, C]
    kernel = kernel.reshape(3, 48 * channels, -1)
    y = sum(jnp.einsum("bhwc,cd->bhwd", x[:, i : i + rows], kernel[i]) for i in range(3))
    y = _with_last(y[..., : 2 * features], y[..., 2 * features :], 1)
    y = _with_last(y[..., :features], y[..., features:], 2)
    return jax.nn.relu(y + shift)


def _with_last(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """Maximum of the two halves of each block, and of the second half of the block before."""
    end = second.shape[axis]
    none = jnp.full_like(jax.lax.slice_in_dim(second, 0, 1, axis=axis), -jnp.inf)
    before = jnp.concatenate([none, jax.lax.slice_in_dim(second, 0, end - 1, axis=axis)], axis)
    return jnp.maximum(jnp.maximum(first, second), before)


def plus_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """[..., C] plus [C].

    A TPU takes the bias's gradient as a product with ones: in the layout that convolutions have there, a sum over
    positions costs as much as half a convolution.
    """
    return _plus(x, vary_like(bias, x))


@jax.custom_vjp
def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias


def sum_by_product(x: jax.Array) -> jax.Array:
    """[..., C] -> [C]."""
    ones = jax.lax.optimization_barrier(jnp.ones(x.shape[:-1], x.dtype))  # else the compiler makes a sum of it again
    axes = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(ones, x, ((axes, axes), ((), ())), preferred_element_type=jnp.float32).astype(x.dtype)


def _bias_gradient(_, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(gradient.ndim - 1))
    return gradient, by_platform(gradient, tpu=sum_by_product, default=lambda g: g.sum(axes))


_plus.defvjp(lambda x, bias: (x + bias, None), _bias_gradient)
