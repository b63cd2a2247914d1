"""Patterns of parameter names decide what trains."""

import jax
import pytest
from flax import nnx

from c2am_jax.models.freezing import freeze_others, select
from c2am_jax.models.layers import Frozen, Linear, SyncBatchNorm

NAMES = ["head.fc_cls.kernel", "head.fc_cls.bias", "head.fc_reg.kernel", "neck.0.kernel"]


def test_a_star_stands_for_any_text_dots_included():
    assert select(NAMES, ["*.fc_cls.*"], setting="s") == set(NAMES[:2])
    assert select(NAMES, ["neck*", "head.fc_reg.kernel"], setting="s") == set(NAMES[2:])
    assert select(NAMES, [], setting="s") == set()


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"train\.x: 'head\.fc_clas\.kernel' matches no array; the nearest are head\.fc_cls\.kernel"
    ):
        select(NAMES, ["*.fc_reg.*", "head.fc_clas.kernel"], setting="train.x")


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(params=0)
        self.layers = nnx.List([Linear(3, 3, rngs=rngs), Linear(3, 2, rngs=rngs)])
        self.norm = SyncBatchNorm(3, zero=False, variable=nnx.Param)


def test_all_parameters_but_those_named_are_frozen():
    net = Net()
    freeze_others(net, ("layers.1.*",))
    assert isinstance(net.layers[1].kernel, nnx.Param) and isinstance(net.layers[1].bias, nnx.Param)
    frozen = net.layers[0].kernel, net.layers[0].bias, net.norm.scale, net.norm.bias
    assert all(type(value) is Frozen for value in frozen)


def test_no_pattern_freezes_nothing():
    net = Net()
    freeze_others(net, ())
    assert isinstance(net.layers[0].kernel, nnx.Param) and isinstance(net.norm.scale, nnx.Param)


def test_a_frozen_norm_keeps_its_statistics():
    net = Net()
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)) + 5
    freeze_others(net, ("layers.*",))
    net.norm(x, train=True, axis_name=None)
    assert float(abs(net.norm.mean[...]).max()) == 0
    other = Net()
    other.norm(x, train=True, axis_name=None)
    assert float(abs(other.norm.mean[...]).max()) > 0
