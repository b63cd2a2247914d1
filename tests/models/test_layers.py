"""Layers against plain definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from c2am_jax.models import layers
from c2am_jax.models.layers import (
    Conv,
    Deconv2x2,
    Frozen,
    FrozenBatchNorm,
    GroupNorm,
    StemConv,
    SyncBatchNorm,
    interleaved,
    kaiming_normal,
    max_pool,
    normed,
    xavier_uniform,
)

RNG = np.random.default_rng(0)


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("hw", [(8, 8), (7, 9)])
def test_convolution_equals_the_padded_library_one(size, stride, hw):
    conv = Conv(3, 5, size, stride=stride, rngs=nnx.Rngs(0))
    conv.bias[...] = random(5)
    x = random(2, *hw, 3)
    padding = ((size // 2, size // 2),) * 2
    expected = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(conv(x), expected + conv.bias[...], atol=1e-5)


@pytest.mark.parametrize("hw", [(8, 8), (7, 5)])
def test_max_pool_equals_the_library_one(hw):
    x = random(2, *hw, 3)
    expected = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(max_pool(x), expected)
    np.testing.assert_array_equal(layers.max_by_windows(x), expected)


def test_blocks_of_pixels_are_the_same_on_every_platform():
    x = random(2, 6, 10, 3)
    np.testing.assert_array_equal(layers.blocks_by_slicing(x), layers.blocks_by_reshaping(x))


def test_deconvolution_spreads_each_cell_over_its_own_two_by_two():
    layer = Deconv2x2(3, 4, rngs=nnx.Rngs(0))
    layer.bias[...] = random(4)
    x = random(1, 2, 3, 3)
    y = interleaved(layer(x))
    assert y.shape == (1, 4, 6, 4)
    for i in range(4):
        for j in range(6):
            kernel = layer.kernel[...][:, i % 2, j % 2]
            expected = x[0, i // 2, j // 2] @ kernel + layer.bias[...]
            np.testing.assert_allclose(y[0, i, j], expected, atol=1e-5)


def test_frozen_batch_norm_uses_the_running_statistics():
    norm = FrozenBatchNorm(3, zero=False, variable=nnx.Param)
    norm.mean[...], norm.var[...] = random(3), jnp.abs(random(3))
    norm.scale[...], norm.bias[...] = random(3), random(3)
    x = random(2, 4, 4, 3)
    expected = (x - norm.mean[...]) / jnp.sqrt(norm.var[...] + 1e-5) * norm.scale[...] + norm.bias[...]
    identity = Conv(3, 3, 1, bias=False, rngs=nnx.Rngs(0))
    identity.kernel[...] = jnp.eye(3)[None, None]
    np.testing.assert_allclose(normed(identity, norm, x, train=True, axis_name=None), expected, atol=1e-5)
    assert isinstance(norm.mean, Frozen) and isinstance(norm.scale, nnx.Param)


@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_a_frozen_norm_in_bfloat16_is_nearer_to_float32_than_its_definition(size, stride):
    """The definition, conv(x) * factor + shift, rounds once more."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    conv = Conv(64, 32, size, stride=stride, bias=False, rngs=nnx.Rngs(0))
    x = draw(2, 32, 24, 64).astype(jnp.bfloat16)
    weight = draw(*conv(x).shape).astype(jnp.bfloat16)
    mean, deviation = draw(32), jnp.sqrt(0.5 + jnp.abs(draw(32)))
    norm = FrozenBatchNorm(32, zero=False, variable=nnx.Param)
    norm.mean[...], norm.var[...] = mean, deviation**2 - 1e-5
    graph, state = nnx.split((conv, norm))

    def defined(kernel, scale, bias, x):
        factor = scale / deviation
        moved = nnx.merge(graph, state)[0]
        moved.kernel = nnx.Param(kernel)
        return moved(x) * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)

    def ours(kernel, scale, bias, x):
        moved, norm = nnx.merge(graph, state)
        moved.kernel, norm.scale, norm.bias = nnx.Param(kernel), nnx.Param(scale), nnx.Param(bias)
        return normed(moved, norm, x)

    arguments = (conv.kernel[...], draw(32), draw(32))

    def results(function, dtype):
        y, back = jax.vjp(function, *arguments, x.astype(dtype))
        return [np.asarray(a, np.float32) for a in (y, *back(weight.astype(dtype)))]

    exact, usual, found = results(defined, "float32"), results(defined, "bfloat16"), results(ours, "bfloat16")
    for name, same, own in zip(("y", "kernel", "scale", "bias", "x"), results(ours, "float32"), exact, strict=True):
        np.testing.assert_allclose(same, own, rtol=1e-4, atol=1e-3, err_msg=name)
    error, by_definition = ([np.linalg.norm(a - b) for a, b in zip(run, exact, strict=True)] for run in (found, usual))
    assert error[0] < by_definition[0] and error[4] < by_definition[4]
    # The bias's gradient is the float32 sum over the positions, rounded once; by the definition it is on some versions.
    np.testing.assert_allclose(found[3], exact[3], rtol=2**-8, atol=1e-4)
    # A CPU adds up products of bfloat16 matrices, of which 1x1 kernels' gradients are made, less exactly in both.
    assert size == 1 or error[1] < by_definition[1]
    # The scale's gradient is made of the other two.
    kernel, scale, _ = arguments
    of_kernel = (found[1] * deviation / scale * kernel).sum((0, 1, 2)) / deviation
    np.testing.assert_allclose(found[2], of_kernel - mean / deviation * found[3], rtol=1e-3, atol=1e-2)


def test_the_stem_of_a_tpu_is_convolution_norm_relu_and_maximum():
    stem = StemConv(3, 5, 7, stride=2, bias=False, rngs=nnx.Rngs(0))
    norm = FrozenBatchNorm(5, zero=False, variable=nnx.Param)
    norm.mean[...], norm.scale[...], norm.bias[...] = random(5), random(5), random(5) - 1
    for hw in ((16, 24), (4, 4)):
        x = random(2, *hw, 3)
        expected = max_pool(jax.nn.relu(normed(stem, norm, x)))
        np.testing.assert_allclose(stem.pooled(x, *norm.affine), expected, atol=1e-5)


def test_group_norm_normalises_each_group_of_an_image():
    norm = GroupNorm(48)  # 16 groups of 3
    x = 5 + 3 * random(2, 4, 4, 48)
    grouped = np.asarray(norm(x)).reshape(2, 16, 16, 3)
    np.testing.assert_allclose(grouped.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(grouped.var((1, 3)), 1, atol=1e-3)


def test_sync_batch_norm_normalises_the_batch_and_remembers_its_statistics():
    norm = SyncBatchNorm(3, zero=False, variable=nnx.Param)
    x = 5 + 3 * random(4, 6, 6, 3)
    y = np.asarray(norm(x, train=True, axis_name=None))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * np.var(x, (0, 1, 2), ddof=1), rtol=1e-5)
    remembered = (x - norm.mean[...]) / jnp.sqrt(norm.var[...] + 1e-5)
    np.testing.assert_allclose(norm(x, train=False, axis_name=None), remembered, atol=1e-5)


def test_sync_batch_norm_sees_the_batch_of_all_devices():
    norm = SyncBatchNorm(3, zero=False, variable=nnx.Param)
    graph, state = nnx.split(norm)

    def apply(state, x, axis_name):
        norm = nnx.merge(graph, state)
        return norm(x, train=True, axis_name=axis_name), nnx.state(norm)

    x = 5 + random(8, 4, 4, 3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = PartitionSpec(), PartitionSpec("data")
    spread = functools.partial(apply, axis_name="data")
    spread = jax.shard_map(spread, mesh=mesh, in_specs=(whole, split), out_specs=(split, whole))
    alone = jax.jit(functools.partial(apply, axis_name=None))(state, x)
    together = jax.jit(spread)(state, x)
    for expected, value in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_sync_batch_norm_learns_nothing():
    norm = SyncBatchNorm(3, zero=False, variable=Frozen)
    x = 5 + random(2, 4, 4, 3)
    np.testing.assert_allclose(norm(x, train=True, axis_name=None), x / np.sqrt(1 + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], 0)


def test_initial_weights_have_the_variance_of_their_rule_and_depend_on_the_key():
    key = jax.random.key(3)
    assert np.std(kaiming_normal(key, (200, 300), 50)) == pytest.approx(np.sqrt(2 / 50), rel=0.02)
    uniform = xavier_uniform(key, (200, 300), 200, 300)
    assert np.abs(uniform).max() == pytest.approx(np.sqrt(6 / 500), rel=0.02)
    again, other = kaiming_normal(key, (3,), 1), kaiming_normal(jax.random.key(4), (3,), 1)
    np.testing.assert_array_equal(again, kaiming_normal(key, (3,), 1))
    assert not np.array_equal(again, other)


def test_the_stem_equals_the_plain_convolution_in_values_and_gradients():
    stem = StemConv(3, 5, 7, stride=2, bias=False, rngs=nnx.Rngs(0))
    plain = Conv(3, 5, 7, stride=2, bias=False, rngs=nnx.Rngs(0))
    x, weight = random(2, 32, 64, 3), random(2, 16, 32, 5)

    def run(layer):
        graph, state = nnx.split(layer)
        return jax.value_and_grad(lambda s: (weight * nnx.merge(graph, s)(x)).sum())(state)

    (value, gradient), (expected, expected_gradient) = run(stem), run(plain)
    assert float(value) == pytest.approx(float(expected), rel=1e-4)
    np.testing.assert_allclose(gradient.kernel[...], expected_gradient.kernel[...], atol=1e-3)
