"""Seesaw: accumulated counts push rare classes less."""

import jax.numpy as jnp

from c2am_jax.losses import seesaw as functions
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.detection import global_sum


def seesaw(p: float = 0.8, q: float = 2.0, eps: float = 1e-2, temperature: float = 20.0) -> Classification:
    """Its state is the number of sampled RoIs of each class so far, background included."""

    def logits(features, kernel, bias):
        return functions.normed_logits(features, kernel, bias, temperature=temperature)

    def loss(features, kernel, bias, labels, weights, state, axis_name=None):
        seen = functions.batch_counts(labels, weights, state["counts"].shape[0])
        counts = state["counts"] + global_sum(seen, axis_name)
        parts = functions.seesaw_loss(logits(features, kernel, bias), labels, counts, p=p, q=q, eps=eps)
        return sum(parts), {"counts": counts}

    return Classification(
        "linear",
        logits,
        loss,
        activate=functions.seesaw_activation,
        init_state=lambda num_classes: {"counts": jnp.zeros(num_classes + 1)},
        extra_outputs=1,
    )
