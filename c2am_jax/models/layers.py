"""Layers with the parameter layout that suits XLA (NHWC), and the variable kinds of the detector.

`nnx.Param` trains. `Frozen` never does (frozen stages, running statistics of frozen batch norm). `nnx.BatchStat` is
updated by the forward pass (synchronised batch norm).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2am_jax.losses.detection import global_sum
from c2am_jax.models.convolution import convolve, every_nth_column, halved_by_phases, plus_bias, stem_by_products
from c2am_jax.ops.platforms import by_platform


class Frozen(nnx.Variable):
    """A value that no gradient and no optimiser touches."""


def _generator(key: jax.Array) -> np.random.Generator:
    """Draws weights on the host.

    Compiling a device generator for each shape would take longer than compiling the training step.
    """
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def normal(key: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
    """N(0, std^2)."""
    return jnp.asarray(_generator(key).standard_normal(shape, np.float32) * np.float32(std))


def kaiming_normal(key: jax.Array, shape: tuple[int, ...], fan: int) -> jax.Array:
    """N(0, 2 / fan)."""
    return normal(key, shape, math.sqrt(2 / fan))


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int, fan_out: int) -> jax.Array:
    """U(-b, b) with b = sqrt(6 / (fan_in + fan_out))."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return jnp.asarray(_generator(key).uniform(-bound, bound, shape).astype(np.float32))


def constant(value: float, *shape: int) -> jax.Array:
    """An array with one value everywhere."""
    return jnp.asarray(np.full(shape, value, np.float32))


class Conv(nnx.Module):
    """A square convolution with symmetric padding ``size // 2``.

    1x1 convolutions run as matrix products: on CPU their gradients are several times faster so, elsewhere it is the
    same thing.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        size: int,
        *,
        stride: int = 1,
        bias: bool = True,
        init: str = "kaiming",
        std: float = 0.01,
        variable: type[nnx.Variable] = nnx.Param,
        rngs: nnx.Rngs,
    ):
        """`init`: "kaiming" (fan out), "xavier" (uniform) or "normal" with `std`; biases start at 0."""
        shape = (size, size, features_in, features_out)
        fan_in, fan_out = size * size * features_in, size * size * features_out
        kernels = {
            "kaiming": lambda key: kaiming_normal(key, shape, fan_out),
            "xavier": lambda key: xavier_uniform(key, shape, fan_in, fan_out),
            "normal": lambda key: normal(key, shape, std),
        }
        self.kernel = variable(kernels[init](rngs.params()))
        self.bias = variable(constant(0, features_out)) if bias else None
        self.size, self.stride = size, stride

    def __call__(self, x: jax.Array, factor: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C'], times a `factor` [C'] that its kernel takes."""
        kernel = self.scaled(factor).astype(x.dtype)
        if self.size == 1 and self.stride == 1:
            y = jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
        elif self.size == 1:
            y = by_platform(x, kernel, cpu=self._by_slicing, tpu=self._by_columns, default=self._by_window)
        elif self.size == 3 and self.stride == 1:
            y = convolve(x, kernel)
        elif self.size == 3 and self.stride == 2:
            y = by_platform(x, kernel, tpu=self._by_phases, default=self._by_window)
        else:
            y = self._by_window(x, kernel)
        return y if self.bias is None else plus_bias(y, self.bias[...].astype(x.dtype))

    def scaled(self, factor: jax.Array | None) -> jax.Array:
        """The kernel, whose output channels a factor [C'] multiplies."""
        kernel = self.kernel[...]
        return kernel if factor is None else kernel * factor

    def _by_slicing(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,cd->bhwd", x[:, :: self.stride, :: self.stride], kernel[0, 0])

    def _by_columns(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,cd->bhwd", every_nth_column(x[:, :: self.stride], 0, self.stride), kernel[0, 0])

    def _by_phases(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
        return halved_by_phases(x, kernel) if even else self._by_window(x, kernel)

    def _by_window(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        # Strided 1x1 ones too: a slice before a product moves columns on a TPU, and CUDA's compiler fails (jax 0.10.1).
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((self.size // 2,) * 2,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class StemConv(Conv):
    """The 7x7 convolution with stride 2 of images of even size, run as 4x4 with stride 1 on 2x2 blocks of pixels.

    The same sums. Three input channels leave vector lanes empty; twelve do not (4 to 10 times faster on CPU for narrow
    stems, equal for 64 channels).
    """

    def __call__(self, x: jax.Array, factor: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] -> [B, H / 2, W / 2, C'], times a `factor` [C']."""
        channels = x.shape[-1]
        # Padding by 4 instead of 3 in front, with a kernel of 8 whose first row and column are zero.
        kernel = jnp.pad(self.scaled(factor).astype(x.dtype), ((1, 0), (1, 0), (0, 0), (0, 0)))
        kernel = kernel.reshape(4, 2, 4, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
        x = jnp.pad(x, ((0, 0), (4, 2), (4, 2), (0, 0)))
        blocks = by_platform(x, cpu=blocks_by_reshaping, default=blocks_by_slicing)
        return jax.lax.conv_general_dilated(
            blocks,
            kernel.reshape(4, 4, 4 * channels, -1),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def pooled(self, x: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
        """``max_pool(relu(conv(x) * factor + shift))`` [B, H / 4, W / 4, C'] of images [B, H, W, 3], as a TPU takes it.

        H and W are multiples of 4.
        """
        return stem_by_products(x, self.scaled(factor).astype(x.dtype), shift.astype(x.dtype))


def blocks_by_reshaping(x: jax.Array) -> jax.Array:
    """[B, 2 H, 2 W, C] -> [B, H, W, 4 C], pixels of a block row by row."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(*blocks.shape[:3], -1)


def blocks_by_slicing(x: jax.Array) -> jax.Array:
    """The same; a TPU pads three channels to 128 lanes in each array that a reshape goes through."""
    return jnp.concatenate([x[:, i::2, j::2] for i in range(2) for j in range(2)], -1)


class Linear(nnx.Module):
    """x W + b with kernel [D, C]."""

    def __init__(self, features_in: int, features_out: int, *, init: str = "xavier", std: float = 0.01, rngs: nnx.Rngs):
        """`init`: "xavier" (uniform) or "normal" with `std`."""
        shape = (features_in, features_out)
        if init == "xavier":
            kernel = xavier_uniform(rngs.params(), shape, features_in, features_out)
        else:
            kernel = normal(rngs.params(), shape, std)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(constant(0, features_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs [..., C] of inputs [..., D]."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class FrozenBatchNorm(nnx.Module):
    """Batch norm by running statistics that never change; the affine part trains unless `variable` is `Frozen`."""

    def __init__(self, features: int, *, zero: bool, variable: type[nnx.Variable]):
        """`zero` starts the scale at 0 (the last norm of a residual branch)."""
        self.scale = variable(constant(0 if zero else 1, features))
        self.bias = variable(constant(0, features))
        self.mean = Frozen(constant(0, features))
        self.var = Frozen(constant(1, features))

    @property
    def affine(self) -> tuple[jax.Array, jax.Array]:
        """Factor and shift [C]."""
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + 1e-5)
        return factor, self.bias[...] - self.mean[...] * factor

    def after(self, conv: Conv, x: jax.Array) -> jax.Array:
        """The norm of ``conv(x)``.

        In float32 in the reference's order, since the scale's gradient is a sum in which much cancels. In bfloat16 the
        kernel takes the factor: one rounding less, the scale's gradient is a sum over the kernel's numbers instead of
        all positions, and the convolution's own result is not kept for it.
        """
        factor, shift = self.affine
        if x.dtype == jnp.float32:
            return conv(x) * factor + shift
        return plus_bias(conv(x, factor), shift.astype(x.dtype))


class SyncBatchNorm(nnx.Module):
    """Batch norm by the statistics of the batch over all devices; running averages (momentum 0.1) for inference."""

    def __init__(self, features: int, *, zero: bool, variable: type[nnx.Variable]):
        """As `FrozenBatchNorm`; a frozen one keeps its running statistics."""
        self.scale = variable(constant(0 if zero else 1, features))
        self.bias = variable(constant(0, features))
        self.mean = nnx.BatchStat(constant(0, features))
        self.var = nnx.BatchStat(constant(1, features))

    def __call__(self, x: jax.Array, *, train: bool, axis_name: str | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]; updates the running averages in training."""
        mean, var = self.mean[...], self.var[...]
        if train and not isinstance(self.scale, Frozen):
            wide = x.astype(jnp.float32)
            devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
            count = devices * x.size / x.shape[-1]
            mean = global_sum(wide.sum((0, 1, 2)), axis_name) / count
            var = global_sum(jnp.square(wide - mean).sum((0, 1, 2)), axis_name) / count
            seen_mean, seen_var = jax.lax.stop_gradient((mean, var * count / max(count - 1, 1)))
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * seen_mean
            self.var[...] = 0.9 * self.var[...] + 0.1 * seen_var
        factor = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
        return x * factor.astype(x.dtype) + (self.bias[...] - mean * factor).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalisation over the positions and channels of each of up to 32 groups of an image."""

    def __init__(self, features: int, *, zero: bool = False, variable: type[nnx.Variable] = nnx.Param):
        """The number of groups is the largest divisor of 32 that divides `features`."""
        self.scale = variable(constant(0 if zero else 1, features))
        self.bias = variable(constant(0, features))
        self.groups = math.gcd(32, features)

    def __call__(self, x: jax.Array, *, train: bool = False, axis_name: str | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]; the mode makes no difference."""
        del train, axis_name
        batch, _, _, channels = x.shape
        wide = x.astype(jnp.float32)

        def of_group(per_channel):  # [B, C] means -> means over each group, per channel again
            grouped = per_channel.reshape(batch, self.groups, -1).mean(-1, keepdims=True)
            return jnp.broadcast_to(grouped, (batch, self.groups, channels // self.groups)).reshape(batch, channels)

        # Reducing over positions first keeps channels in vector lanes (five times faster on CPU than by group).
        mean = of_group(wide.mean((1, 2)))
        var = of_group(jnp.square(wide - mean[:, None, None]).mean((1, 2)))
        factor = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
        shift = self.bias[...] - mean * factor
        return (wide * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)


def normed(conv: Conv, norm: nnx.Module, x: jax.Array, **mode) -> jax.Array:
    """A convolution and the norm behind it."""
    return norm.after(conv, x) if isinstance(norm, FrozenBatchNorm) else norm(conv(x), **mode)


NORMS = {"frozen_bn": FrozenBatchNorm, "sync_bn": SyncBatchNorm, "group_norm": GroupNorm}


def max_pool(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]: 3x3 maximum with stride 2 and padding 1."""
    return by_platform(x, cpu=max_by_slicing, default=max_by_windows)


def max_by_windows(x: jax.Array) -> jax.Array:
    """`max_pool` as accelerators take it."""
    window, strides, padding = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def max_by_slicing(x: jax.Array) -> jax.Array:
    """Nine strided slices; their gradient is 3 times faster on CPU."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    result = None
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            result = part if result is None else jnp.maximum(result, part)
    assert result is not None
    return result


class Deconv2x2(nnx.Module):
    """Transposed 2x2 convolution with stride 2, as one matrix product; kernel [C, 2, 2, C']."""

    def __init__(self, features_in: int, features_out: int, *, rngs: nnx.Rngs):
        """Kaiming normal (fan out), bias 0."""
        shape = (features_in, 2, 2, features_out)
        self.kernel = nnx.Param(kaiming_normal(rngs.params(), shape, 4 * features_out))
        self.bias = nnx.Param(constant(0, features_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, 2, 2, C']: the four pixels that each one becomes, see `interleaved`."""
        y = jnp.einsum("bhwc,cijd->bhwijd", x, self.kernel[...].astype(x.dtype))
        return y + self.bias[...].astype(x.dtype)


def interleaved(x: jax.Array) -> jax.Array:
    """Pixels [B, H, W, 2, 2, ...] that lie in one another's place -> [B, 2 H, 2 W, ...].

    What follows pixel by pixel is better done before: moving few channels costs less.
    """
    batch, height, width = x.shape[:3]
    return jnp.swapaxes(x, 2, 3).reshape(batch, 2 * height, 2 * width, *x.shape[5:])
