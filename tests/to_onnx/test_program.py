"""JAX functions as ONNX graphs, run by onnxruntime: the numbers of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.errors import UserError

convert = pytest.importorskip("c2am_jax.to_onnx.program", reason='needs the extra "onnx"').convert
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

rng = np.random.default_rng(0)
TABLE = rng.normal(size=(2, 5, 4)).astype(np.float32)
WHOLE = rng.integers(-7, 8, (2, 5), dtype=np.int32)
POSITIVE = np.abs(TABLE) + 0.5
INDEX = np.array([[3, 0, 9], [-1, 4, 2]], np.int32)  # 9 does not exist
IMAGE = rng.normal(size=(2, 6, 8, 4)).astype(np.float32)
KERNEL = rng.normal(size=(3, 3, 2, 6)).astype(np.float32)


def found(function, *inputs):
    """What onnxruntime makes of ``function(*inputs)``, a dictionary."""
    names = {f"x{number}": jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype) for number, x in enumerate(inputs)}
    model = convert(function, names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, dict(zip(names, inputs, strict=True))),
            strict=True,
        )
    )


def doubled_until_large(start):
    return jax.lax.while_loop(lambda x: x.sum() < 20, lambda x: 2 * x, start)


def running(x, reverse):
    def step(total, row):
        return total + row, total * row

    return jax.lax.scan(step, jnp.zeros(5), x, reverse=reverse)


def gathered(mode):
    def function(x, index):
        at = index if mode == "clip" else jnp.where(index < 0, index + 5, index)
        return jnp.take_along_axis(x[..., 0], at, 1, mode=mode, fill_value=-3)

    return function


def windows(x, index):
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(0,), start_index_map=(0, 1))
    return jax.lax.gather(x, index, numbers, (1, 3, 4), mode="clip")


def convolved(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 1), ((1, 0), (1, 2)), rhs_dilation=(1, 2), dimension_numbers=numbers, feature_group_count=2
    )


def largest(x):
    start = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *start)


CASES = {
    "functions of numbers": (
        lambda x: [
            f(x) for f in (jnp.exp, jnp.log, jnp.log2, jnp.log1p, jnp.expm1, jax.lax.rsqrt, jnp.tanh, jax.nn.sigmoid)
        ],
        [POSITIVE],
    ),
    "powers": (lambda x: [x**-3, x**0, x**2.5, jnp.square(x), jnp.sqrt(x)], [POSITIVE]),
    "rounding": (lambda x: [jnp.floor(x), jnp.ceil(x), jnp.round(x), jnp.clip(x, -1, 1), jnp.sign(x)], [3 * TABLE]),
    "whole numbers": (lambda x: [x // 3, x % 3, jax.lax.rem(x, 3), jnp.maximum(x, 1), x & 5], [WHOLE]),
    "comparisons": (lambda x: [x < 0, x != 2, ~(x > 1) | (x == 3), jnp.isfinite(1 / x)], [WHOLE.astype(np.float32)]),
    "a choice of booleans": (lambda x: jnp.where(x > 0, x > 2, x < -2), [WHOLE]),
    "sums": (lambda x: [x.sum(), x.max(1), x.mean((0, 2)), jnp.cumsum(x, 1), x.argmax(-1)], [TABLE]),
    "any and all": (lambda x: [(x > 6).any(1), (x > -7).all(), (x > 0).argmax(1)], [WHOLE]),
    "shapes": (
        lambda x: [x.T, x[::-1, 1:4:2], jnp.pad(x, 1), jnp.stack([x, x], 2), jnp.tile(x, (1, 2, 1)), x[:, None] + x[0]],
        [TABLE],
    ),
    "cutting by padding": (lambda x: jax.lax.pad(x, 2.0, ((0, 0, 0), (-1, 2, 0), (1, -2, 0))), [TABLE]),
    "parts": (lambda x: jnp.split(x, (1, 3), 1), [TABLE]),
    "a moving slice": (
        lambda x, i: jax.lax.dynamic_slice(x, (i[0], i[1], 0), (1, 3, 4)),
        [TABLE, np.array([1, 4], np.int32)],
    ),
    "order": (lambda x: [jnp.argsort(x, 1), jnp.sort(x, 0)], [WHOLE]),
    "the largest, ties by index": (lambda x: jax.lax.top_k(x, 3), [WHOLE.astype(np.float32)]),
    "indices that are clipped": (gathered("clip"), [TABLE, INDEX]),
    "indices that do not exist": (gathered("fill"), [TABLE, INDEX]),
    "rows of a batch": (jax.vmap(lambda x, i: x[i]), [TABLE, np.abs(INDEX) % 5]),
    "windows": (windows, [TABLE, np.array([[0, 1], [1, 4]], np.int32)]),
    "products": (lambda x, y: [jnp.einsum("bic,bjc->bij", x, y), x @ y[0].T, jnp.vdot(x, y)], [TABLE, POSITIVE]),
    "a convolution in groups": (convolved, [IMAGE, KERNEL]),
    "the largest of windows": (largest, [IMAGE]),
    "steps": (lambda x: running(x, False), [TABLE[..., 0]]),
    "steps from the end": (lambda x: running(x, True), [TABLE[..., 0]]),
    "a loop": (doubled_until_large, [POSITIVE]),
    "a loop that never runs": (doubled_until_large, [100 * POSITIVE]),
    "loops of a batch": (jax.vmap(doubled_until_large), [POSITIVE * np.array([1, 40], np.float32)[:, None, None]]),
    "a branch": (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, lambda x: x, x), [POSITIVE]),
    "the other branch": (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, lambda x: x, x), [-POSITIVE]),
}


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_computes_what_jax_does(name):
    function, inputs = CASES[name]

    def numbered(*inputs):
        return {f"y{number}": value for number, value in enumerate(jax.tree.leaves(function(*inputs)))}

    got = found(numbered, *inputs)
    for output, expected in jax.jit(numbered)(*inputs).items():
        assert got[output].dtype == expected.dtype and got[output].shape == expected.shape
        np.testing.assert_allclose(got[output], expected, rtol=1e-5, atol=1e-5)


def test_equal_weights_are_held_once_and_unused_operations_not_at_all():
    weight = np.arange(1000, dtype=np.float32)

    def function(x):
        jnp.fft.fft(x)  # has no rule
        return {"y": jnp.asarray(weight) * x + jnp.asarray(weight.copy())}

    model = convert(function, {"x": jax.ShapeDtypeStruct((1000,), jnp.float32)})
    assert 4000 < model.ByteSize() < 5000


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (jnp.fft.fft, "JAX's operation fft"),
        (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 1),)), "padding between elements (pad)"),
    ],
)
def test_an_operation_without_a_rule_is_named(function, words):
    with pytest.raises(UserError) as error:
        convert(lambda x: {"y": function(x)}, {"x": jax.ShapeDtypeStruct((8,), jnp.float32)})
    assert words in str(error.value) and "--format stablehlo" in str(error.value)
