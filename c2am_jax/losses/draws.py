"""Random numbers of losses that spare some channels by chance, the same whatever the number of devices.

Row r of the global batch draws from a key made of (seed, step, r): the method's `seed`, the steps its state has counted
and the position among the RoIs of all devices. So eight devices draw what one draws, and a resumed run what an
undisturbed one draws. Where gradients are accumulated every part counts as a step, and the parts that eight devices
make of a batch are not those of one: draws are then alike in distribution only.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c2am_jax.losses.classification import Samples


def uniforms(seed: int, step: Int[Array, ""], columns: int, samples: Samples) -> Float[Array, "n k"]:
    """One number of [0, 1) for each of `columns` of this device's rows."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    position = samples.first_row + jnp.arange(len(samples.labels))
    return jax.vmap(lambda p: jax.random.uniform(jax.random.fold_in(key, p), (columns,)))(position)


def smallest(
    candidates: Bool[Array, " n"], order: Float[Array, " n"], most: Float[Array, ""], samples: Samples
) -> Bool[Array, " n"]:
    """The `most` candidates of all devices with the smallest `order`, all if there are fewer: [N] of this device."""
    order = samples.gather(jnp.where(candidates, order, jnp.inf))
    rank = jnp.zeros(order.shape, jnp.int32).at[jnp.argsort(order)].set(jnp.arange(len(order), dtype=jnp.int32))
    own = jax.lax.dynamic_slice_in_dim(rank, samples.first_row, candidates.shape[0])
    return candidates & (own < most)


def choose(
    candidates: Bool[Array, " n"], order: Float[Array, " n"], share: float, samples: Samples
) -> Bool[Array, " n"]:
    """floor(share x candidates) of the candidates of all devices, those of the smallest `order`: [N] of this device."""
    most = jnp.floor(share * samples.sum(candidates.sum()) + 1e-4)  # 0.1 * 30 is a little less than 3 in float32
    return smallest(candidates, order, most, samples)
