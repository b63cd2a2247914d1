"""SGD as the reference runs it, from `config.train`."""

import jax.numpy as jnp
import optax

from c2am_jax.experiment import TrainSettings


def learning_rate(train: TrainSettings, steps_per_epoch: int) -> optax.Schedule:
    """Step -> rate: `base_lr` per 16 images, linear warm-up, times `lr_gamma` at each of `lr_steps` or `lr_epochs`."""
    peak = train.base_lr * train.batch_size / 16
    steps = train.lr_steps or [int(round(epoch * steps_per_epoch)) for epoch in train.lr_epochs]
    drops = {step: train.lr_gamma for step in steps}
    decayed = optax.piecewise_constant_schedule(peak, drops)
    if not train.warmup_steps:
        return decayed

    def schedule(step):
        done = jnp.minimum(step / max(train.warmup_steps - 1, 1), 1.0)
        return decayed(step) * (train.warmup_factor + (1 - train.warmup_factor) * done)

    return schedule


def total_steps(train: TrainSettings, steps_per_epoch: int) -> int:
    """`train.steps` if positive, else `train.epochs` epochs."""
    return train.steps if train.steps > 0 else train.epochs * steps_per_epoch


def make_optimizer(train: TrainSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Decay is added to the gradient, then momentum, then -lr: C2AM's weight norms depend on this order.

    Every trained array decays, norms and biases too (reference rule). `grad_clip` > 0 clips the global norm first.
    """
    chain = [optax.clip_by_global_norm(train.grad_clip)] if train.grad_clip > 0 else []
    chain += [
        optax.add_decayed_weights(train.weight_decay),
        optax.trace(decay=train.momentum),
        optax.scale_by_learning_rate(schedule),
    ]
    return optax.chain(*chain)
