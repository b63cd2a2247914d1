"""Box head: two shared fully connected layers, classifier and box regression."""

import jax
import jax.numpy as jnp
from flax import nnx

from c2am_jax.losses.classification import Classification, Head
from c2am_jax.models.architecture import BoxHeadSettings
from c2am_jax.models.layers import Frozen, Linear, constant, normal


class CosineClassifier(nnx.Module):
    """Kernel [D, C] without bias; its logits come from `losses.angles`, which needs its norms."""

    def __init__(self, features_in: int, classes: int, *, rngs: nnx.Rngs):
        """N(0, 0.01): norms are the state of the method, so every class starts alike."""
        self.kernel = nnx.Param(normal(rngs.params(), (features_in, classes), 0.01))
        self.bias = None


class ClassifierExtra(nnx.Module):
    """A method's arrays other than kernel and bias: `Classification.extra_parameters`."""

    def __init__(self, arrays: dict[str, jax.Array]):
        """Integers are constants; all others can train."""
        self.names = tuple(arrays)
        for name, value in arrays.items():
            constant = jnp.issubdtype(value.dtype, jnp.integer)
            setattr(self, name, Frozen(value) if constant else nnx.Param(value))

    def arrays(self) -> dict[str, jax.Array]:
        """The extra parameters of the classifier by name, as losses take them."""
        return {name: getattr(self, name)[...] for name in self.names}


class BoxRegressor(nnx.Module):
    """Deltas per class; kernel [K, 4, D] so that one class's rows can be gathered (K = 1: class agnostic).

    With a class-agnostic branch, `shared`, the weights of class c are (W_0 + W_c) / 2: those of the branch W_0 learn
    from the boxes of all classes (Zhu et al., ECCV 2024). `weights.regression` makes plain weights of them.
    """

    def __init__(self, features_in: int, classes: int, *, branch: bool = False, rngs: nnx.Rngs):
        """N(0, 0.001); `branch` adds the class-agnostic one."""
        self.kernel = nnx.Param(normal(rngs.params(), (classes, 4, features_in), 0.001))
        self.bias = nnx.Param(constant(0, classes, 4))
        self.shared = BoxRegressor(features_in, 1, rngs=rngs) if branch else None

    def __call__(self, features: jax.Array) -> jax.Array:
        """Box deltas [..., K, 4] of features [..., D]."""
        own = jnp.einsum("...d,kcd->...kc", features, self.kernel[...].astype(features.dtype)) + self.bias[...]
        return own if self.shared is None else (self.shared(features) + own) / 2

    def of_class(self, features: jax.Array, labels: jax.Array) -> jax.Array:
        """[N, D] and [N] -> [N, 4]: one class's deltas each; any label for a class-agnostic regressor."""
        index = jnp.minimum(labels, self.kernel.shape[0] - 1)
        kernel = self.kernel[...][index].astype(features.dtype)
        own = jnp.einsum("nd,ncd->nc", features, kernel) + self.bias[...][index]
        return own if self.shared is None else (self.shared.of_class(features, labels) + own) / 2


class BoxHead(nnx.Module):
    """Shared2FC: RoI features -> [N, D]; `fc_cls` (linear or cosine) and `fc_reg` read them."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        classification: Classification,
        settings: BoxHeadSettings,
        *,
        rngs: nnx.Rngs,
    ):
        """`classification` decides the classifier: its kind and the number of its outputs."""
        width = settings.fc_channels
        inputs = settings.pool_size**2 * channels
        self.shared_fcs = nnx.List([Linear(inputs, width, rngs=rngs), Linear(width, width, rngs=rngs)])
        outputs = num_classes + 1 + classification.extra_outputs
        if classification.classifier == "cosine":
            self.fc_cls = CosineClassifier(width, outputs, rngs=rngs)
        else:
            self.fc_cls = Linear(width, outputs, init="normal", std=classification.kernel_std, rngs=rngs)
            self.fc_cls.bias[...] = jnp.full(outputs, classification.bias_init)
        boxes = 1 if settings.class_agnostic else num_classes
        self.fc_reg = BoxRegressor(width, boxes, branch=settings.class_agnostic_branch, rngs=rngs)
        self.cls_extra = ClassifierExtra(classification.extra_parameters(num_classes, width, rngs.params))
        self.settings = settings

    def __call__(self, pooled: jax.Array) -> jax.Array:
        """[N, S, S, C] -> [N, D], after ReLU."""
        x = pooled.reshape(pooled.shape[0], -1)
        for layer in self.shared_fcs:
            x = jax.nn.relu(layer(x))
        return x

    def classifier(self) -> Head:
        """Its arrays as the method reads them."""
        bias = self.fc_cls.bias
        return Head(self.fc_cls.kernel[...], None if bias is None else bias[...], self.cls_extra.arrays())
