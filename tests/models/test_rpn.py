"""The RPN reads sampled anchors alone, as if it had computed all of them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2am_jax.models.rpn import RPNHead
from c2am_jax.models.settings import RPNSettings


def dense(head, features, index):
    """Logits and deltas of `index` out of everything."""
    output = head(features)
    batch = features[0].shape[0]
    logits = jnp.concatenate([cls.reshape(batch, -1) for cls, _ in output], 1)
    deltas = jnp.concatenate([reg.reshape(batch, -1, 4) for _, reg in output], 1)
    return jnp.take_along_axis(logits, index, 1), jnp.take_along_axis(deltas, index[..., None], 1)


def test_values_and_gradients_at_all_anchors_are_those_of_the_whole_map():
    rng = np.random.default_rng(0)
    head = RPNHead(8, RPNSettings(strides=(4, 8, 16)), rngs=nnx.Rngs(0))
    features = [jnp.asarray(rng.standard_normal((2, h, w, 8)), jnp.float32) for h, w in ((6, 10), (3, 5), (2, 3))]
    anchors = 3 * (60 + 15 + 6)
    index = jnp.asarray(np.stack([rng.permutation(anchors) for _ in range(2)]))
    graph, params = nnx.split(head)

    def value(way, params, features):
        logits, deltas = way(nnx.merge(graph, params), features, index)
        weight = jnp.linspace(-1, 1, logits.size).reshape(logits.shape)
        return (weight * logits).sum() + (weight[..., None] * jnp.square(deltas)).sum(), (logits, deltas)

    def both(way):
        return jax.jit(jax.value_and_grad(lambda *a: value(way, *a), argnums=(0, 1), has_aux=True))(params, features)

    (_, found), found_gradient = both(lambda head, features, index: head.at(features, index))
    (_, wanted), wanted_gradient = both(dense)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found_gradient, wanted_gradient)
