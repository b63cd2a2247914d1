"""BALMS, a second stage: a meta re-weighter for the balanced sigmoid loss (Ren et al., NeurIPS 2020, section 3.3).

One weight ``sigmoid(v_c)`` per class multiplies the loss of its RoIs. A virtual SGD step of the classifier under these
weights should lower the plain (unshifted) sigmoid loss of class-balanced samples; v goes down that gradient.

The source draws a class-balanced batch; here the batch's own foreground RoIs stand for it, each class that occurs
weighing the same: what a class-balanced resample of them is on average, without its noise. Only the classifier's last
layer takes the virtual step, in the source as here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from c2am_jax.checks import NonNegative
from c2am_jax.losses.channels import foreground_only, one_hot
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.methods.balanced_sigmoid import balanced_sigmoid_loss
from c2am_jax.losses.statistics import ClassStatistics


def sample_weights(value: Float[Array, " k"], samples: Samples) -> Float[Array, " n"]:
    """Weight of each RoI: 1 for background, else ``sigmoid(v_y)``, scaled so that foreground keeps its sum.

    `value` is v of each class, [K]; the weight of padding is 0.
    """
    classes, labels, weights = value.shape[0], samples.labels, samples.weights
    foreground = weights * (labels < classes)
    own = foreground * jax.nn.sigmoid(value)[jnp.minimum(labels, classes - 1)]
    total = samples.sum(own.sum())
    scale = samples.sum(foreground.sum()) / jnp.where(total > 0, total, 1.0)
    return scale * own + weights * (labels == classes)


def balanced_share(samples: Samples, classes: int) -> Float[Array, " n"]:
    """Shares of the RoIs in the meta batch: each class that occurs weighs the same, background nothing; sums 1: [N]."""
    foreground = samples.weights * (samples.labels < classes)
    own = jnp.minimum(samples.labels, classes - 1)
    counts = samples.sum(jnp.zeros(classes, samples.weights.dtype).at[own].add(foreground))
    occurring = jnp.maximum((counts > 0).sum(), 1)
    return foreground / jnp.maximum(counts, 1.0)[own] / occurring


def meta_gradient(
    value: Float[Array, " k"], samples: Samples, head: Head, frequency: Float[Array, " k"], *, rate: float
) -> Float[Array, " k"]:
    """Gradient for v of the balanced samples' sigmoid loss after one virtual SGD step of kernel and bias, [K].

    Args:
      value: v of each class.
      samples: what the classifier reads.
      head: the classifier before the step.
      frequency: share of images that hold each class.
      rate: of the virtual step.
    """
    count = samples.count
    share = balanced_share(samples, value.shape[0])
    targets = one_hot(samples.labels, value.shape[0])

    def training_loss(head: Head, value):
        per_sample = balanced_sigmoid_loss(head.linear(samples.features), samples.labels, frequency)
        return (sample_weights(value, samples) * per_sample).sum() / count

    def after_a_step(value):
        # This device's part of the gradient, then the sum: the classifier is a different value on each device.
        own = jax.grad(training_loss)(head, value)
        moved = jax.tree.map(lambda p, g: p - rate * samples.sum(g), head, own)
        per_sample = binary_cross_entropy(moved.linear(samples.features), targets).sum(-1)
        return samples.sum((share * per_sample).sum())

    return jax.grad(after_a_step)(value)


def balms(statistics: ClassStatistics, meta_rate: NonNegative = 0.01, inner_rate: NonNegative = 0.02) -> Classification:
    """Balanced sigmoid, each class weighted by what the meta re-weighter learnt.

    Its state is v of each class and Adam's averages; `inner_rate` is the virtual step's, the schedule's first rate.
    """
    frequency = np.clip(statistics.image_frequency, 1e-6, 1 - 1e-6)
    adam = optax.adam(meta_rate)

    def loss(samples: Samples, head: Head, state):
        prior = jnp.asarray(frequency, jnp.float32)
        gradient = meta_gradient(state["value"], *jax.lax.stop_gradient((samples, head)), prior, rate=inner_rate)
        updates, averages = adam.update(gradient, state["adam"])
        value = state["value"] + jnp.asarray(updates)
        per_sample = balanced_sigmoid_loss(head.linear(samples.features), samples.labels, prior)
        return sample_weights(value, samples) * per_sample, {"value": value, "adam": averages}

    def init_state(num_classes, width):
        value = jnp.zeros(num_classes)
        return {"value": value, "adam": adam.init(value)}

    return foreground_only(loss, init_state=init_state)
