"""Methods of a second stage: LWS, BAGS, DisAlign, BALMS, LOCE. They start from a trained detector, most of it frozen.

cRT needs nothing of its own: the baseline's softmax, a new classifier and another sampler (configs/methods/crt.py).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from c2am_jax.losses import bags as bags_functions
from c2am_jax.losses import balms as balms_functions
from c2am_jax.losses import disalign as disalign_functions
from c2am_jax.losses import loce as loce_functions
from c2am_jax.losses.classification import Classification, count_steps, linear_logits
from c2am_jax.losses.detection import global_sum
from c2am_jax.losses.draws import uniforms
from c2am_jax.losses.methods.channels import foreground_only
from c2am_jax.losses.sigmoid import balanced_sigmoid_loss
from c2am_jax.losses.softmax import equilibrium_loss, softmax_cross_entropy
from c2am_jax.losses.statistics import ClassStatistics


def lws() -> Classification:
    """Learnable weight scaling (Kang et al., ICLR 2020): ``z_c = f_c W_c x + b_c``; f starts at 1, only it trains."""

    def logits(features, kernel, bias, *, factor):
        return linear_logits(features, kernel * factor, bias)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None, *, factor):
        del weights, axis_name
        return softmax_cross_entropy(logits(features, kernel, bias, factor=factor), labels), state

    def extra(num_classes, width, draw_key):
        del width, draw_key
        return {"factor": jnp.ones(num_classes + 1)}

    return Classification("linear", logits, loss, extra_parameters=extra)


def _of_all(shares: jax.Array, weights: jax.Array, axis_name: str | None) -> jax.Array:
    """Shares of a loss that is normalised already, for a caller who divides their sum by the number of samples."""
    return shares * jnp.maximum(global_sum(weights.sum(), axis_name), 1.0)


def bags(statistics: ClassStatistics, others_ratio: float = 8.0, seed: int = 0) -> Classification:
    """BAGS (Li et al., CVPR 2020): a softmax per group of like instance counts.

    The groups are part of the head, so a checkpoint is evaluated with those it was trained with. "Others" are drawn as
    `losses.draws` says. A cascade averages log-probabilities, which is a geometric mean over its stages.
    """
    groups = bags_functions.groups_of(statistics.instances)

    def logits(features, kernel, bias, *, group):
        return bags_functions.bags_log_probabilities(linear_logits(features, kernel, bias), group)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None, *, group):
        uniform = uniforms(seed, state["step"], len(labels), bags_functions.GROUPS, axis_name)
        shares = bags_functions.bags_loss(
            linear_logits(features, kernel, bias),
            labels,
            weights,
            group,
            uniform,
            others_ratio=others_ratio,
            axis_name=axis_name,
        )
        return _of_all(shares, weights, axis_name), {"step": state["step"] + 1}

    def extra(num_classes, width, draw_key):
        del width, draw_key
        return {"group": jnp.asarray(np.broadcast_to(groups, num_classes))}

    return Classification(
        "linear",
        logits,
        loss,
        activate=jnp.exp,
        init_state=count_steps,
        extra_outputs=bags_functions.GROUPS + 1,
        extra_parameters=extra,
    )


def disalign(statistics: ClassStatistics, power: float = 0.8, background_weight: float = 1.0) -> Classification:
    """DisAlign (Zhang et al., CVPR 2021): only magnitude a, margin b and the confidence's v and v_0 train."""
    class_weights = disalign_functions.generalized_weights(statistics.instances, power, background_weight)

    def logits(features, kernel, bias, *, magnitude, margin, direction, offset):
        q = disalign_functions.confidence(features, direction, offset)
        return disalign_functions.aligned_logits(linear_logits(features, kernel, bias), q, magnitude, margin)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None, **extra):
        aligned = logits(features, kernel, bias, **extra)
        shares = disalign_functions.disalign_loss(
            aligned, labels, weights, jnp.asarray(class_weights, aligned.dtype), axis_name=axis_name
        )
        return _of_all(shares, weights, axis_name), state

    def extra(num_classes, width, draw_key):
        return {
            "magnitude": jnp.ones(num_classes),
            "margin": jnp.zeros(num_classes),
            "direction": 0.01 * jax.random.normal(draw_key(), (width,)),
            "offset": jnp.zeros(()),
        }

    return Classification("linear", logits, loss, extra_parameters=extra)


def balms(statistics: ClassStatistics, meta_rate: float = 0.01, inner_rate: float = 0.02) -> Classification:
    """BALMS (Ren et al., NeurIPS 2020): balanced sigmoid, each class weighted by what the meta re-weighter learnt.

    Its state is v of each class and Adam's averages; `inner_rate` is the virtual step's, the schedule's first rate.
    """
    frequency = np.clip(statistics.image_frequency, 1e-6, 1 - 1e-6)
    adam = optax.adam(meta_rate)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        prior = jnp.asarray(frequency, jnp.float32)
        fixed = jax.lax.stop_gradient((features, kernel, bias))
        gradient = balms_functions.meta_gradient(
            state["value"], *fixed, labels, weights, prior, rate=inner_rate, axis_name=axis_name
        )
        updates, averages = adam.update(gradient, state["adam"])
        value = state["value"] + jnp.asarray(updates)
        own = balms_functions.sample_weights(value, labels, weights, axis_name)
        per_sample = balanced_sigmoid_loss(linear_logits(features, kernel, bias), labels, prior)
        return own * per_sample, {"value": value, "adam": averages}

    def init_state(num_classes):
        value = jnp.zeros(num_classes)
        return {"value": value, "adam": adam.init(value)}

    return dataclasses.replace(foreground_only(loss), init_state=init_state)


def loce(
    features: int = 1024,
    size: int = 80,
    drawn_classes: int = 8,
    drawn_entries: int = 4,
    momentum: float = 0.9,
    seed: int = 0,
) -> Classification:
    """LOCE (Feng et al., ICCV 2021): equilibrium loss, and remembered features of classes with low mean scores.

    A step adds `drawn_classes` x `drawn_entries` remembered samples to the whole batch's, drawn by a key of (seed,
    step), the same on every device; the loss divides by all samples, remembered ones included. Each class gives its
    score one entry per step, the mean over its positives, and one more if it was drawn. `features` is the width of the
    head.
    """

    def loss(x, kernel, bias, labels, weights, state, axis_name=None):
        background = state["bank"].shape[0]
        drawn, drawn_labels, is_filled = loce_functions.draw_entries(
            state,
            jax.random.fold_in(jax.random.key(seed), state["step"]),
            classes=drawn_classes,
            entries=drawn_entries,
        )
        logits, more = linear_logits(x, kernel, bias), linear_logits(drawn, kernel, bias)
        own = equilibrium_loss(logits, labels, state["score"])
        added = equilibrium_loss(more, drawn_labels, state["score"])
        added = jnp.where(is_filled, added, 0.0).sum()
        count = jnp.maximum(global_sum(weights.sum(), axis_name), 1.0)
        per_sample = (own + added / count) * count / (count + is_filled.sum())

        # Every device has all remembered samples: each scores its share of them.
        devices, device = (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
        is_share = is_filled & (jnp.arange(len(drawn_labels)) % devices == device)
        positive = (weights > 0) & (labels < background)
        fixed = jax.lax.stop_gradient((logits, more, x))
        own_sum, own_count = loce_functions.class_scores(fixed[0], labels, positive, axis_name=axis_name)
        more_sum, more_count = loce_functions.class_scores(fixed[1], drawn_labels, is_share, axis_name=axis_name)
        sums = own_sum / jnp.maximum(own_count, 1.0) + more_sum / jnp.maximum(more_count, 1.0)
        entries = (own_count > 0).astype(jnp.float32) + (more_count > 0)
        bank, seen = loce_functions.remember(
            state["bank"], state["seen"], fixed[2], labels, positive, axis_name=axis_name
        )
        score = loce_functions.updated_scores(state["score"], sums, entries, momentum=momentum)
        return per_sample, {"score": score, "bank": bank, "seen": seen, "step": state["step"] + 1}

    def init_state(num_classes):
        return loce_functions.first_state(num_classes, features, size=size)

    def extra(num_classes, width, draw_key):
        del num_classes, draw_key
        if width != features:
            raise ValueError(f"loss.features={features}, but the box head has {width} (model.box_head.fc_channels)")
        return {}

    return Classification("linear", linear_logits, loss, init_state=init_state, extra_parameters=extra)
