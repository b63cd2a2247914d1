"""Feature pyramid network: P2..P6 from C2..C5."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from c2am_jax.models.architecture import FPNSettings
from c2am_jax.models.layers import Conv, GroupNorm
from c2am_jax.ops.platforms import by_platform


class ConvNorm(nnx.Module):
    """A convolution (`conv`) and, if asked for, group normalisation behind it (`norm`); no activation."""

    def __init__(self, features_in: int, features_out: int, size: int, norm: str, *, init: str, rngs: nnx.Rngs):
        """`norm`: "none" or "group_norm"."""
        if norm not in ("none", "group_norm"):
            raise ValueError(f"norm must be none or group_norm, not {norm!r}")
        self.conv = Conv(features_in, features_out, size, bias=norm == "none", init=init, rngs=rngs)
        self.norm = GroupNorm(features_out) if norm == "group_norm" else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C']."""
        y = self.conv(x)
        return y if self.norm is None else self.norm(y)


def upsample_nearest(x: jax.Array, hw: tuple[int, int]) -> jax.Array:
    """Nearest neighbour to a size at most twice as large: cell i reads floor(i * in / out)."""
    if hw == (2 * x.shape[1], 2 * x.shape[2]):
        return by_platform(x, tpu=doubled_by_product, default=doubled_by_reshaping)
    rows = jnp.arange(hw[0]) * x.shape[1] // hw[0]
    columns = jnp.arange(hw[1]) * x.shape[2] // hw[1]
    return x[:, rows][:, :, columns]


def doubled_by_reshaping(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C]; the gradient of a reshape is cheaper than that of a gather."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def doubled_by_product(x: jax.Array) -> jax.Array:
    """The same by matrices of 0 and 1, since moving rows and columns is what a TPU does slowly; so is the gradient."""

    def copies(side):
        return (jnp.arange(2 * side)[:, None] // 2 == jnp.arange(side)).astype(x.dtype)

    _, height, width, _ = x.shape
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("vw,bhwc->bhvc", copies(width), x, precision=exact)
    return jnp.einsum("uh,bhwc->buwc", copies(height), x, precision=exact)


class FPN(nnx.Module):
    """Lateral 1x1 convolutions, top-down sums, 3x3 convolutions; P6 is P5 subsampled (reference rule)."""

    def __init__(self, in_channels: Sequence[int], settings: FPNSettings, *, rngs: nnx.Rngs):
        """`in_channels` of C2..C5."""

        def make(c, size):
            return ConvNorm(c, settings.channels, size, settings.norm, init="xavier", rngs=rngs)

        self.lateral_convs = nnx.List([make(channels, 1) for channels in in_channels])
        self.fpn_convs = nnx.List([make(settings.channels, 3) for _ in in_channels])

    def __call__(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps P2..P6 of the maps C2..C5."""
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features, strict=True)]
        for level in range(len(laterals) - 2, -1, -1):
            finer = laterals[level]
            laterals[level] = finer + upsample_nearest(laterals[level + 1], (finer.shape[1], finer.shape[2]))
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]
        return [*outputs, outputs[-1][:, ::2, ::2]]
