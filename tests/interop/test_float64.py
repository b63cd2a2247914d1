"""A float32 function in float64: its arithmetic, its numbers, its integers; and a training step of a detector."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.interop.float64 import in_float64
from c2am_jax.structures import Inputs
from c2am_jax.training.state import build_detector

X = np.linspace(-1, 1, 6, dtype=np.float32) / 3
WIDE = X.astype(np.float64)


def recurrence(x):
    """A loop with state and rows, from the end."""
    return jax.lax.scan(lambda state, row: (state * 0.9 + row, jnp.sin(state)), x[0], x, reverse=True)


def recurrence_of_numpy(x):
    state, rows = x[0], []
    for row in x[::-1]:
        rows.append(np.sin(state))
        state = state * 0.9 + row
    return state, np.array(rows[::-1])


def repeated(x):
    """Loops of different length, batched: the condition is a vector."""

    def of_row(value, times):
        return jax.lax.while_loop(lambda s: s[1] < times, lambda s: (s[0] * 1.1, s[1] + 1), (value, jnp.int32(0)))[0]

    return jax.vmap(of_row)(x, jnp.arange(len(x)))


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, x), lambda x, gradient: (gradient * x * 0.3,))

# What the program is, and the same in numpy.
CASES = {
    "numbers of the program": (
        lambda x: x * 0.1 + jnp.asarray([0.7, 1e-5, 2, 0.3, 1e-12, 3]),
        lambda x: x * 0.1 + np.array([0.7, 1e-5, 2, 0.3, 1e-12, 3]),
    ),
    "types": (
        lambda x: x + jnp.arange(6, dtype=jnp.float32) / 3 + jnp.arange(6).astype(jnp.float32),
        lambda x: x + np.arange(6) / 3 + np.arange(6),
    ),
    "loop": (recurrence, recurrence_of_numpy),
    "loops of a batch": (repeated, lambda x: x * 1.1 ** np.arange(6)),
    "branches": (lambda x: jax.lax.cond(x[0] < 0, jnp.exp, jnp.cos, x), np.exp),
    "functions": (jax.jit(lambda x: jax.nn.softplus(jax.nn.relu(x))), lambda x: np.log1p(np.exp(np.maximum(x, 0)))),
    "value by rule": (halved, lambda x: x / 2),
    "gradient by rule": (jax.grad(lambda x: halved(x).sum()), lambda x: x * 0.3),
    "gradient": (
        jax.grad(lambda x: (jax.nn.softplus(x) ** 2).sum()),
        lambda x: 2 * np.log1p(np.exp(x)) / (1 + np.exp(-x)),
    ),
    "product": (
        lambda x: jnp.matmul(x[None], x[:, None], preferred_element_type=jnp.float32),
        lambda x: x[None] @ x[:, None],
    ),
    "scatter": (
        lambda x: jnp.zeros(4).at[jnp.array([0, 1, 1, 2, 0, 3])].add(x / 7),
        lambda x: np.bincount([0, 1, 1, 2, 0, 3], x / 7),
    ),
    "order": (
        lambda x: jax.lax.top_k(jnp.sin(x * 9), 3),
        lambda x: (np.sort(np.sin(x * 9))[:-4:-1], np.argsort(np.sin(x * 9))[:-4:-1]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_numpy_in_float64(name):
    function, of_numpy = CASES[name]
    for found, expected in zip(jax.tree.leaves(in_float64(function)(X)), jax.tree.leaves(of_numpy(WIDE)), strict=True):
        assert found.dtype == (np.int32 if expected.dtype == np.int64 else np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)


def test_arguments_keep_their_value_and_results_go_in_again():
    third = in_float64(lambda x: x / 3)
    assert float(third(np.float32(0.1))) == float(np.float32(0.1)) / 3
    assert float(third(third(np.float32(0.1)))) == float(np.float32(0.1)) / 3 / 3


def test_integers_bits_and_narrow_floats_mean_what_they_mean_in_float32():
    def function(x):
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        drawn = jax.random.uniform(jax.random.key(3), (4,))
        return bits >> 9, jax.lax.bitcast_convert_type(bits, jnp.float32), drawn, x.astype(jnp.bfloat16)

    for found, expected in zip(in_float64(function)(X), jax.jit(function)(X), strict=True):
        np.testing.assert_array_equal(np.asarray(found, expected.dtype), expected)


def test_nothing_else_becomes_float64():
    in_float64(lambda x: x * 2)(X)
    assert jnp.ones(1).dtype == np.float32 and not jax.config.jax_enable_x64


def test_a_training_step_differs_from_float32_by_rounding_alone(compile_quickly):
    detector, loss_state = build_detector(tiny_config(model__backbone__depth=10))
    rng = np.random.default_rng(0)
    boxes = np.array([[[4, 4, 30, 34], [20, 22, 62, 60]]], np.float32)
    inputs = Inputs(
        image=rng.normal(size=(1, 64, 64, 3)).astype(np.float32),
        image_hw=np.full((1, 2), 64, np.int32),
        boxes=boxes,
        labels=np.array([[3, 40]], np.int32),
        masks=rng.integers(0, 2, (1, 2, 16, 16)).astype(np.uint8),
        mask_frames=boxes,
        valid=np.ones((1, 2), bool),
    )

    def step(params, rest, loss_state, inputs):
        def total(params):
            model = dataclasses.replace(detector, params=params, rest=rest).module()
            losses, metrics, _ = model.loss(inputs, None, loss_state)
            return sum(losses.values()), (losses, metrics)

        gradients, (losses, metrics) = jax.grad(total, has_aux=True)(params)
        return {name: (gradient**2).sum() for name, gradient in gradients.items()}, losses, metrics

    with jax.default_matmul_precision("highest"):
        own, wide = (run(step)(detector.params, detector.rest, loss_state, inputs) for run in (jax.jit, in_float64))
    assert len(own[0]) > 40 and all(value.dtype == np.float64 for value in jax.tree.leaves(wide))
    errors = jax.tree.map(lambda a, b: abs(float(a) / float(b) - 1) if b else abs(float(a)), own, wide)
    assert max(jax.tree.leaves(errors[1:])) < 1e-5 and max(jax.tree.leaves(errors[0])) < 1e-3
    assert max(jax.tree.leaves(errors)) > 1e-9  # the second run was not the first again
