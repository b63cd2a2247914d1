"""SGD as the reference runs it, from `config.train`."""

import optax

from c2am_jax.experiment import TrainSettings


def make_optimizer(train: TrainSettings, rate: optax.Schedule) -> optax.GradientTransformation:
    """Decay is added to the gradient, then momentum, then -lr: C2AM's weight norms depend on this order.

    Every trained array decays, norms and biases too (reference rule). `grad_clip` > 0 clips the global norm first.
    """
    chain = [optax.clip_by_global_norm(train.grad_clip)] if train.grad_clip > 0 else []
    chain += [
        optax.add_decayed_weights(train.weight_decay),
        optax.trace(decay=train.momentum),
        optax.scale_by_learning_rate(rate),
    ]
    return optax.chain(*chain)
