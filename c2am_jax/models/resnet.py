"""ResNet backbones of the `pytorch` style: C2..C5."""

import functools
from collections.abc import Sequence

import jax
from flax import nnx

from c2am_jax.models.architecture import BackboneSettings
from c2am_jax.models.layers import NORMS, Conv, Frozen, FrozenBatchNorm, StemConv, max_pool, normed
from c2am_jax.ops.platforms import by_platform


class ResidualBlock(nnx.Module):
    """Convolutions, a norm behind each, and the shortcut around them."""

    expansion = 1
    depth = 0  # convolutions `conv1`, `conv2`, ..., whose norms are `bn1`, `bn2`, ...

    def __init__(self, features_in: int, features_out: int, stride: int, norm, variable, *, rngs: nnx.Rngs):
        """`variable` is the kind of the block's parameters."""
        if stride == 1 and features_in == features_out:
            self.downsample = None
        else:
            conv = Conv(features_in, features_out, 1, stride=stride, bias=False, variable=variable, rngs=rngs)
            self.downsample = nnx.List([conv, norm(features_out, zero=False, variable=variable)])

    def __call__(self, x: jax.Array, **mode) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, C']."""
        shortcut = x if self.downsample is None else normed(*self.downsample, x, **mode)
        for number in range(1, self.depth + 1):
            x = normed(getattr(self, f"conv{number}"), getattr(self, f"bn{number}"), x, **mode)
            x = jax.nn.relu(x if number < self.depth else x + shortcut)
        return x


class BasicBlock(ResidualBlock):
    """The residual block of the shallow depths: two 3x3 convolutions."""

    depth = 2

    def __init__(self, features_in: int, width: int, stride: int, norm, variable, *, rngs: nnx.Rngs):
        """`variable` is the kind of the block's parameters."""
        options = {"bias": False, "variable": variable, "rngs": rngs}
        self.conv1 = Conv(features_in, width, 3, stride=stride, **options)
        self.bn1 = norm(width, zero=False, variable=variable)
        self.conv2 = Conv(width, width, 3, **options)
        self.bn2 = norm(width, zero=True, variable=variable)
        super().__init__(features_in, width, stride, norm, variable, rngs=rngs)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (which has the stride), 1x1 with four times the channels."""

    expansion = 4
    depth = 3

    def __init__(self, features_in: int, width: int, stride: int, norm, variable, *, rngs: nnx.Rngs):
        """`variable` is the kind of the block's parameters."""
        options = {"bias": False, "variable": variable, "rngs": rngs}
        self.conv1 = Conv(features_in, width, 1, **options)
        self.bn1 = norm(width, zero=False, variable=variable)
        self.conv2 = Conv(width, width, 3, stride=stride, **options)
        self.bn2 = norm(width, zero=False, variable=variable)
        self.conv3 = Conv(width, 4 * width, 1, **options)
        self.bn3 = norm(4 * width, zero=True, variable=variable)
        super().__init__(features_in, 4 * width, stride, norm, variable, rngs=rngs)


def _run(block, x, **mode):
    return block(x, **mode)


ARCHITECTURES = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nnx.Module):
    """Stem and four stages; the frozen ones lie outside the gradient."""

    def __init__(self, settings: BackboneSettings, *, rngs: nnx.Rngs):
        """Raises ValueError for a depth or norm that does not exist."""
        if settings.depth not in ARCHITECTURES:
            raise ValueError(f"model.backbone.depth must be one of {sorted(ARCHITECTURES)}, not {settings.depth}")
        if settings.norm not in NORMS:
            raise ValueError(f"model.backbone.norm must be one of {', '.join(NORMS)}, not {settings.norm!r}")
        block, repeats = ARCHITECTURES[settings.depth]
        norm = NORMS[settings.norm]

        def kind(stage):
            return Frozen if stage <= settings.frozen_stages else nnx.Param

        self.conv1 = StemConv(3, settings.width, 7, stride=2, bias=False, variable=kind(0), rngs=rngs)
        self.bn1 = norm(settings.width, zero=False, variable=kind(0))
        features = settings.width
        for stage, count in enumerate(repeats, 1):
            width = settings.width * 2 ** (stage - 1)
            blocks = []
            for index in range(count):
                stride = 2 if index == 0 and stage > 1 else 1
                blocks.append(block(features, width, stride, norm, kind(stage), rngs=rngs))
                features = block.expansion * width
            setattr(self, f"layer{stage}", nnx.List(blocks))
        self.out_channels = tuple(settings.width * 2**i * block.expansion for i in range(4))
        self.frozen_stages, self.remat = settings.frozen_stages, settings.remat

    def __call__(self, image: jax.Array, *, train: bool = False, axis_name: str | None = None) -> Sequence[jax.Array]:
        """[B, H, W, 3] -> C2..C5 with strides 4, 8, 16, 32."""
        mode = {"train": train, "axis_name": axis_name}
        x = self._stem(image, **mode)
        if self.frozen_stages == 0:
            x = jax.lax.stop_gradient(x)
        outputs = []
        for stage in range(1, 5):
            for block in getattr(self, f"layer{stage}"):
                run = functools.partial(_run, **mode)
                x = nnx.remat(run)(block, x) if self.remat and stage > self.frozen_stages else run(block, x)
            if stage == self.frozen_stages:
                x = jax.lax.stop_gradient(x)
            outputs.append(x)
        return outputs

    def _stem(self, image: jax.Array, **mode) -> jax.Array:
        def plain(image):
            return max_pool(jax.nn.relu(normed(self.conv1, self.bn1, image, **mode)))

        if not isinstance(self.bn1, FrozenBatchNorm) or image.shape[1] % 4 or image.shape[2] % 4:
            return plain(image)
        return by_platform(image, tpu=lambda image: self.conv1.pooled(image, *self.bn1.affine), default=plain)
