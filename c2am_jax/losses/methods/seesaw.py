"""Seesaw loss (Wang et al., CVPR 2021) on a normalised classifier with an objectness branch.

The classifier gives K + 2 logits: K classes, then object and background. Rules are those of MMDetection 3.3.0's
`SeesawLoss` and `NormedLinear`; counts are summed over all devices, where the reference keeps one count per process.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from c2am_jax.checks import Positive
from c2am_jax.losses.angles import normed
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.cross_entropy import softmax_cross_entropy


def normed_logits(
    features: Num[Array, "n d"], kernel: Num[Array, "d c"], bias: Num[Array, " c"], *, temperature: float = 20.0
) -> Float[Array, "n c"]:
    """``temperature * cos(x, W_j) + b_j``, with 1e-6 added to each norm: [N, C]."""
    features, kernel = (x if x.dtype == jnp.float64 else x.astype(jnp.float32) for x in (features, kernel))
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(temperature * normed(features, -1), normed(kernel, 0), precision=exact) + bias


def batch_counts(labels: Int[Array, " n"], weights: Float[Array, " n"], classes: int) -> Float[Array, " c"]:
    """Samples of each class, those of weight 0 left out: [N] and [N] -> [classes]."""
    return jnp.zeros(classes, jnp.float32).at[labels].add((weights > 0).astype(jnp.float32))


def seesaw_adjustment(
    logits: Float[Array, "n k"],
    labels: Int[Array, " n"],
    counts: Float[Array, " k"],
    *,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
) -> Float[Array, "n k"]:
    """What is added to the class logits: ``ln(M_ij C_ij)`` for j other than the label i, without gradient.

    Mitigation ``M_ij = min(1, N_j / N_i)^p`` with counts of at least 1 spares rarer classes; compensation
    ``C_ij = max(1, p_j / max(p_i, eps))^q`` with p the softmax over the K classes punishes those that are mistaken
    for the label.
    """
    log_counts = jnp.log(jnp.maximum(counts, 1.0))
    mitigation = p * jnp.minimum(log_counts[None] - log_counts[labels][:, None], 0.0)
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(logits), axis=-1)
    own = jnp.maximum(jnp.take_along_axis(probabilities, labels[:, None], 1), eps)
    compensation = q * jnp.log(jnp.maximum(probabilities / own, 1.0))
    is_label = jnp.arange(logits.shape[1])[None] == labels[:, None]
    return jax.lax.stop_gradient(jnp.where(is_label, 0.0, mitigation + compensation))


def seesaw_loss(
    logits: Float[Array, "n k2"],
    labels: Int[Array, " n"],
    counts: Float[Array, " k1"],
    *,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Class loss (0 for background) and objectness loss of each sample.

    Args:
      logits: K classes, then object and background.
      labels: 0..K, background K.
      counts: samples seen of each class so far, this batch included: [K + 1].
      p, q, eps: exponents of mitigation and compensation, floor of the label's probability.
    """
    classes = logits.shape[1] - 2
    is_background = labels == classes
    label = jnp.where(is_background, 0, labels)
    own = logits[:, :classes]
    adjusted = own + seesaw_adjustment(own, label, counts[:classes], p=p, q=q, eps=eps)
    class_loss = jnp.where(is_background, 0.0, softmax_cross_entropy(adjusted, label))
    return class_loss, softmax_cross_entropy(logits[:, classes:], is_background.astype(jnp.int32))


def seesaw_activation(logits: Float[Array, "n k2"]) -> Float[Array, "n k1"]:
    """Probabilities [N, K + 1]: softmax over the classes times objectness, then background."""
    objectness = jax.nn.softmax(logits[:, -2:], axis=-1)
    return jnp.concatenate([jax.nn.softmax(logits[:, :-2], axis=-1) * objectness[:, :1], objectness[:, 1:]], -1)


def seesaw(p: float = 0.8, q: float = 2.0, eps: float = 1e-2, temperature: Positive = 20.0) -> Classification:
    """Its state is the number of sampled RoIs of each class so far, background included."""

    def logits(features: jax.Array, head: Head):
        assert head.bias is not None  # the classifier is linear
        return normed_logits(features, head.kernel, head.bias, temperature=temperature)

    def loss(samples: Samples, head: Head, state):
        seen = batch_counts(samples.labels, samples.weights, state["counts"].shape[0])
        counts = state["counts"] + samples.sum(seen)
        own, objectness = seesaw_loss(logits(samples.features, head), samples.labels, counts, p=p, q=q, eps=eps)
        return own + objectness, {"counts": counts}

    return Classification(
        "linear",
        loss,
        logits,
        own_activation=seesaw_activation,
        init_state=lambda num_classes, width: {"counts": jnp.zeros(num_classes + 1)},
        extra_outputs=1,
    )
