"""BALMS's meta re-weighter for the balanced sigmoid loss (Ren et al., NeurIPS 2020, section 3.3).

One weight ``sigmoid(v_c)`` per class multiplies the loss of its RoIs. A virtual SGD step of the classifier under these
weights should lower the plain (unshifted) sigmoid loss of class-balanced samples; v goes down that gradient.

The source draws a class-balanced batch; here the batch's own foreground RoIs stand for it, each class that occurs
weighing the same: what a class-balanced resample of them is on average, without its noise. Only the classifier's last
layer takes the virtual step, in the source as here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from c2am_jax.losses.classification import linear_logits
from c2am_jax.losses.detection import binary_cross_entropy, global_sum
from c2am_jax.losses.sigmoid import balanced_sigmoid_loss, one_hot


def sample_weights(
    value: Float[Array, " k"], labels: Int[Array, " n"], weights: Float[Array, " n"], axis_name: str | None = None
) -> Float[Array, " n"]:
    """Weight of each RoI: 1 for background, else ``sigmoid(v_y)``, scaled so that foreground keeps its sum.

    Args:
      value: v of each class, [K].
      labels: 0..K.
      weights: 1, or 0 for padding, whose weight is 0.
      axis_name: mesh axis of the devices that share the batch.
    """
    classes = value.shape[0]
    foreground = weights * (labels < classes)
    own = foreground * jax.nn.sigmoid(value)[jnp.minimum(labels, classes - 1)]
    total = global_sum(own.sum(), axis_name)
    scale = global_sum(foreground.sum(), axis_name) / jnp.where(total > 0, total, 1.0)
    return scale * own + weights * (labels == classes)


def balanced_share(labels: Int[Array, " n"], weights: Float[Array, " n"], classes: int, axis_name: str | None = None):
    """Shares of the RoIs in the meta batch: each class that occurs weighs the same, background nothing; sums 1: [N]."""
    foreground = weights * (labels < classes)
    own = jnp.minimum(labels, classes - 1)
    counts = global_sum(jnp.zeros(classes, weights.dtype).at[own].add(foreground), axis_name)
    occurring = jnp.maximum((counts > 0).sum(), 1)
    return foreground / jnp.maximum(counts, 1.0)[own] / occurring


def meta_gradient(
    value: Float[Array, " k"],
    features: Num[Array, "n d"],
    kernel: Float[Array, "d k"],
    bias: Float[Array, " k"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    frequency: Float[Array, " k"],
    *,
    rate: float,
    axis_name: str | None = None,
) -> Float[Array, " k"]:
    """Gradient for v of the balanced samples' sigmoid loss after one virtual SGD step of kernel and bias, [K].

    Args:
      value: v of each class.
      features: what the classifier reads.
      kernel, bias: the classifier before the step.
      labels: 0..K.
      weights: 1, or 0 for padding.
      frequency: share of images that hold each class.
      rate: of the virtual step.
      axis_name: mesh axis; gradients and sums run over all its devices.
    """
    count = jnp.maximum(global_sum(weights.sum(), axis_name), 1.0)
    share = balanced_share(labels, weights, value.shape[0], axis_name)
    targets = one_hot(labels, value.shape[0])

    def training_loss(classifier, value):
        per_sample = balanced_sigmoid_loss(linear_logits(features, *classifier), labels, frequency)
        return (sample_weights(value, labels, weights, axis_name) * per_sample).sum() / count

    def after_a_step(value):
        # This device's part of the gradient, then the sum: the classifier is a different value on each device.
        own = jax.grad(training_loss)((kernel, bias), value)
        moved = jax.tree.map(lambda p, g: p - rate * global_sum(g, axis_name), (kernel, bias), own)
        per_sample = binary_cross_entropy(linear_logits(features, *moved), targets).sum(-1)
        return global_sum((share * per_sample).sum(), axis_name)

    return jax.grad(after_a_step)(value)
