"""BACL: margins of pairs of foreground classes, and hallucinated features (Qi et al., IEEE Trans. Multimedia 2024).

K + 1 sigmoid channels, background last. The rules are those of the paper (arXiv 2308.02213) as the authors' code has
them (`fcbl.py`, `fhm_convfc_bbox_head.py` and `reweight_hook.py` of Tianhao-Qi/BACL). State of a head with K classes
and D features, the same on every device:

  confusion             [K, K]  softmax scores of each class's samples, added up over the run: rows are ground truth
  counts                [K]     those samples
  mean, variance, seen  [K, D], [K, D], [K]  of each class's features, running (`losses.moments`)
  step                  []

The source collects means and variances from 16 jittered boxes around each ground truth. The sampled positive RoIs lie
around them in the same way, so their features are taken here, as in LOCE. It draws in each process of two images; here
one key of (seed, step) draws for the whole batch, as often for each 1024 RoIs. Biases start at a prior of 0.001, where
the source starts from its first stage's classifier.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.checks import Count, Natural, NonNegative, Share
from c2am_jax.losses.channels import PRIOR_BIAS, one_hot, sigmoid_with_background
from c2am_jax.losses.classification import Classification, Head, Samples
from c2am_jax.losses.confusion import confusion_sums
from c2am_jax.losses.detection import binary_cross_entropy
from c2am_jax.losses.moments import no_moments, updated_statistics

LEAST = 1e-3  # a share of the confusion matrix in a margin is at least this
ROIS_PER_DRAW = 1024  # of two images
STATE = dict[str, jax.Array]


def confusion_matrix(sums: Float[Array, "k k"], counts: Float[Array, " k"]) -> Float[Array, "k k"]:
    """M_ij, the mean score that samples of class i gave to class j; rows of classes without samples are 0."""
    return sums / jnp.maximum(counts, 1.0)[:, None]


def bacl_margins(
    confusion: Float[Array, "k k"], labels: Int[Array, " n"], *, alpha: float = 0.85
) -> Float[Array, "n k1"]:
    """What is added to the logits of samples of class i: ``alpha ln(M_ij / M_ji)``, [N, K + 1], without gradient.

    Class j is pushed the harder by samples of i, the more often they are taken for j than the other way round. Samples
    of background have no margins, and background's channel has none. Shares are floored at 1e-3.
    """
    classes = len(confusion)
    share = jnp.log(jnp.maximum(jax.lax.stop_gradient(confusion), LEAST))
    pairs = jnp.pad(alpha * (share - share.T), ((0, 1), (0, 1)))
    return pairs[jnp.minimum(labels, classes)]


def bacl_weights(
    logits: Float[Array, "n k1"], labels: Int[Array, " n"], *, threshold: float = 0.7
) -> Float[Array, "n k1"]:
    """Which channels each sample trains, 0 or 1, without gradient.

    Foreground samples train background's channel, their own, and those of all classes that score at least as high as
    theirs, or at least `threshold` (0: all). Background samples train all channels.
    """
    background = logits.shape[1] - 1
    scores = sigmoid_with_background(jax.lax.stop_gradient(logits))
    own = jnp.take_along_axis(scores, labels[:, None], 1)
    chosen = (scores >= own) | (scores >= threshold) | (jnp.arange(background + 1) == background)
    return (chosen | (labels == background)[:, None]).astype(logits.dtype)


def bacl_loss(
    logits: Float[Array, "n k1"],
    labels: Int[Array, " n"],
    confusion: Float[Array, "k k"],
    *,
    alpha: float = 0.85,
    threshold: float = 0.7,
) -> Float[Array, " n"]:
    """Foreground classification balance loss: weighted BCE of the logits plus margins, summed over the channels.

    Args:
      logits: K classes, then background.
      labels: 0..K, background K.
      confusion: of `confusion_matrix`, from the steps before.
      alpha: factor of the margins.
      threshold: of `bacl_weights`.
    """
    moved = logits + bacl_margins(confusion, labels, alpha=alpha).astype(logits.dtype)
    weights = bacl_weights(logits, labels, threshold=threshold)
    return (weights * binary_cross_entropy(moved, one_hot(labels, logits.shape[1], logits.dtype))).sum(-1)


def hallucinated(
    state: STATE, key: jax.Array, *, classes: int, features: int
) -> tuple[Float[Array, "e d"], Int[Array, " e"], Bool[Array, " e"]]:
    """Drawn features: `classes` times a class, the likelier the worse it is recognised, and `features` of each.

    A class is drawn with a probability in proportion to 1 - M_cc, with replacement. Its features are
    ``mean + sqrt(variance) * normal``.

    Returns:
      features [E, D], labels [E], and which of the E = classes * features count: those of classes that were seen.
    """
    recognised = jnp.diagonal(confusion_matrix(state["confusion"], state["counts"]))
    class_key, normal_key = jax.random.split(key)
    chances = jnp.log(jnp.maximum(1 - recognised, 1e-12))
    labels = jnp.repeat(jax.random.categorical(class_key, chances, shape=(classes,)), features)
    mean, deviation = state["mean"][labels], jnp.sqrt(state["variance"][labels])
    return mean + deviation * jax.random.normal(normal_key, mean.shape), labels, state["seen"][labels]


def bacl(
    alpha: NonNegative = 0.85,
    threshold: Share = 0.7,
    drawn_classes: Natural = 8,
    drawn_features: Count = 12,
    momentum: Share = 0.1,
    seed: int = 0,
) -> Classification:
    """`drawn_classes` x `drawn_features` hallucinated samples for each 1024 RoIs train like sampled ones.

    `alpha` 0, `threshold` 0 and `drawn_classes` 0 leave the plain sigmoid cross-entropy of the first stage. `momentum`
    is the share of a batch in the running means and variances.
    """

    def loss(samples: Samples, head: Head, state):
        logits, confusion = head.linear(samples.features), confusion_matrix(state["confusion"], state["counts"])
        given = {"alpha": alpha, "threshold": threshold}
        per_sample = bacl_loss(logits, samples.labels, confusion, **given)
        fixed = jax.lax.stop_gradient(samples)
        sums, counts = confusion_sums(logits, fixed, len(confusion))
        moments = updated_statistics(state, fixed, momentum=momentum)

        device, devices = samples.device
        draws = drawn_classes * max(1, len(samples.labels) * devices // ROIS_PER_DRAW)
        if draws:
            key = jax.random.fold_in(jax.random.key(seed), state["step"])
            drawn, labels, counted = hallucinated(state | moments, key, classes=draws, features=drawn_features)
            more = head.linear(drawn)
            added = jnp.where(counted, bacl_loss(more, labels, confusion, **given), 0.0).sum()
            count = samples.count
            per_sample = (per_sample + added / count) * count / (count + counted.sum())
            # Every device has all drawn samples: each counts its share of them.
            own = counted & (jnp.arange(len(labels)) % devices == device)
            share = Samples(drawn, labels, own.astype(jnp.float32), samples.axis_name)
            more_sums, more_counts = confusion_sums(more, share, len(confusion))
            sums, counts = sums + more_sums, counts + more_counts
        new = {"confusion": state["confusion"] + sums, "counts": state["counts"] + counts, "step": state["step"] + 1}
        return per_sample, new | moments

    def init_state(num_classes, width):
        counters = {"counts": jnp.zeros(num_classes), "step": jnp.zeros((), jnp.int32)}
        return {"confusion": jnp.zeros((num_classes, num_classes))} | counters | no_moments(num_classes, width)

    return Classification(
        "linear", loss, own_activation=sigmoid_with_background, init_state=init_state, bias_init=PRIOR_BIAS
    )
