"""ResNet and FPN: shapes, rules of the reference, options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2am_jax.models.architecture import BackboneSettings, FPNSettings
from c2am_jax.models.fpn import FPN, doubled_by_product, upsample_nearest
from c2am_jax.models.layers import Frozen
from c2am_jax.models.resnet import ResNet


def test_bottleneck_stages_have_the_strides_and_channels_of_the_reference():
    model = ResNet(BackboneSettings(depth=50, width=4), rngs=nnx.Rngs(0))
    shapes = [s.shape for s in jax.eval_shape(model, jnp.zeros((1, 64, 96, 3)))]
    assert shapes == [(1, 16, 24, 16), (1, 8, 12, 32), (1, 4, 6, 64), (1, 2, 3, 128)]
    assert [len(getattr(model, f"layer{i}")) for i in range(1, 5)] == [3, 4, 6, 3]
    assert model.layer2[0].conv1.stride == 1 and model.layer2[0].conv2.stride == 2


@pytest.mark.parametrize("frozen_stages, trains", [(-1, "conv1 1 2 3 4"), (0, "1 2 3 4"), (2, "3 4"), (4, "")])
def test_only_stages_behind_the_frozen_ones_train(frozen_stages, trains):
    model = ResNet(BackboneSettings(depth=10, width=4, frozen_stages=frozen_stages), rngs=nnx.Rngs(0))
    stem = [] if isinstance(model.conv1.kernel, Frozen) else ["conv1"]
    stages = [str(i) for i in range(1, 5) if isinstance(getattr(model, f"layer{i}")[0].bn1.scale, nnx.Param)]
    assert stem + stages == trains.split()


def test_residual_branches_start_at_zero():
    model = ResNet(BackboneSettings(depth=50, width=4), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(model.layer3[1].bn3.scale[...], 0)
    np.testing.assert_array_equal(model.layer3[1].bn2.scale[...], 1)


@pytest.mark.parametrize("norm", ["group_norm", "sync_bn"])
def test_other_norms_give_finite_features_of_a_usual_size(norm):
    backbone = BackboneSettings(depth=18, width=8, norm=norm, frozen_stages=-1)
    model = ResNet(backbone, rngs=nnx.Rngs(0))
    neck = FPN(model.out_channels, FPNSettings(channels=12, norm="group_norm"), rngs=nnx.Rngs(1))
    image = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    outputs = neck(model(image, train=True))
    assert [o.shape for o in outputs] == [(2, s, s, 12) for s in (16, 8, 4, 2, 1)]
    assert all(0.3 < float(jnp.std(o)) < 3 for o in outputs[:4])


def test_the_coarsest_level_is_the_one_before_subsampled():
    neck = FPN((4, 8), FPNSettings(channels=6), rngs=nnx.Rngs(0))
    outputs = neck([jnp.ones((1, 8, 10, 4)), jnp.ones((1, 4, 5, 8))])
    np.testing.assert_array_equal(outputs[2], outputs[1][:, ::2, ::2])


@pytest.mark.parametrize("hw", [(8, 10), (7, 9), (8, 9)])
def test_upsampling_reads_the_nearest_coarser_cell(hw):
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    y = np.asarray(upsample_nearest(jnp.asarray(x), hw))
    for i in range(hw[0]):
        for j in range(hw[1]):
            np.testing.assert_array_equal(y[0, i, j], x[0, i * 4 // hw[0], j * 5 // hw[1]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_doubling_by_a_product_loses_no_bit(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 3)), dtype)
    np.testing.assert_array_equal(doubled_by_product(x), upsample_nearest(x, (8, 10)))


@pytest.mark.parametrize("wrong", [{"depth": 34}, {"norm": "bn"}])
def test_an_unknown_option_names_the_choices(wrong):
    with pytest.raises(ValueError, match="must be one of"):
        ResNet(dataclasses.replace(BackboneSettings(), **wrong), rngs=nnx.Rngs(0))
