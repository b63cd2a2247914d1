"""FCN mask head that computes one class's channel per RoI."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2am_jax.losses.angles import normed
from c2am_jax.losses.methods.forest import parent_count
from c2am_jax.models.architecture import MaskHeadSettings
from c2am_jax.models.fpn import ConvNorm
from c2am_jax.models.layers import Deconv2x2, Frozen, constant, interleaved, kaiming_normal


class MaskPredictor(nnx.Module):
    """The 1x1 convolution to one channel per class; kernel [K, C] so that a class's weights can be gathered."""

    def __init__(self, channels: int, num_classes: int, *, rngs: nnx.Rngs):
        """Kaiming normal (fan out), bias 0."""
        self.kernel = nnx.Param(kaiming_normal(rngs.params(), (num_classes, channels), num_classes))
        self.bias = nnx.Param(constant(0, num_classes))

    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """[N, ..., C] and [N] -> [N, ...]: the label's channel; those of all K classes are never made."""
        index = jnp.minimum(labels, self.kernel.shape[0] - 1)  # class agnostic: one channel for all
        kernel = self.kernel[...][index].astype(x.dtype)
        return jnp.einsum("n...c,nc->n...", x, kernel) + self._bias(x, index)

    def _bias(self, x: jax.Array, index: jax.Array) -> jax.Array:
        return self.bias[...][index].reshape(-1, *[1] * (x.ndim - 2))


class NormedMaskPredictor(MaskPredictor):
    """``temperature * cos(x, W_k) + b_k`` at each pixel, 1e-6 added to each norm (reference rule: `NormedConv2d`)."""

    def __init__(self, channels: int, num_classes: int, *, temperature: float, rngs: nnx.Rngs):
        """Arguments as for `MaskPredictor`."""
        super().__init__(channels, num_classes, rngs=rngs)
        self.temperature = temperature

    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """[N, ..., C] and [N] -> [N, ...]: the label's channel, float32."""
        index = jnp.minimum(labels, self.kernel.shape[0] - 1)
        kernel = normed(self.kernel[...][index], -1)
        x = normed(x.astype(jnp.float32), -1)
        return self.temperature * jnp.einsum("n...c,nc->n...", x, kernel) + self._bias(x, index)


class MaskHead(nnx.Module):
    """3x3 convolutions, a transposed 2x2 one, the predictor."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        settings: MaskHeadSettings,
        *,
        class_channel: np.ndarray | None = None,
        rngs: nnx.Rngs,
    ):
        """`channels` of the RoI features; `class_channel` [K] is the mask channel of each class, for `geometric`."""
        widths = [channels] + [settings.channels] * settings.convs

        def make(i):
            return ConvNorm(widths[i], widths[i + 1], 3, "none", init="kaiming", rngs=rngs)

        self.convs = nnx.List([make(i) for i in range(settings.convs)])
        self.upsample = Deconv2x2(widths[-1], settings.channels, rngs=rngs)
        classes = 1 if settings.class_agnostic else num_classes
        if settings.geometric:
            classes = parent_count("geometric", num_classes)
        self.class_channel = Frozen(jnp.asarray(class_channel, jnp.int32)) if settings.geometric else None
        if settings.predictor == "normed":
            temperature = settings.temperature
            self.conv_logits = NormedMaskPredictor(settings.channels, classes, temperature=temperature, rngs=rngs)
        else:
            self.conv_logits = MaskPredictor(settings.channels, classes, rngs=rngs)

    def hidden(self, pooled: jax.Array) -> jax.Array:
        """What the predictor reads: [N, S, S, C] -> [N, S, S, 2, 2, C'], the four pixels that each one becomes."""
        x = pooled
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return jax.nn.relu(self.upsample(x))

    def __call__(self, pooled: jax.Array, labels: jax.Array) -> jax.Array:
        """[N, S, S, C] and [N] foreground labels -> logits [N, 2 S, 2 S], float32."""
        if self.class_channel is not None:
            labels = self.class_channel[...][jnp.minimum(labels, self.class_channel.shape[0] - 1)]
        return interleaved(self.conv_logits(self.hidden(pooled), labels).astype(jnp.float32))
