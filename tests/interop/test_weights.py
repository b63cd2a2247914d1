"""PyTorch names, layouts and files."""

import numpy as np
import pytest

from c2am_jax.errors import UserError
from c2am_jax.interop.fill import fill
from c2am_jax.interop.names import from_torch, state_dict, to_torch, torch_name, torch_shape
from c2am_jax.interop.weights import read_weights, to_ours

RNG = np.random.default_rng(0)
SHAPES = {
    "backbone.layer1.0.downsample.0.kernel": (1, 1, 4, 8),
    "backbone.layer1.0.downsample.1.scale": (8,),
    "backbone.layer1.0.downsample.1.var": (8,),
    "backbone.conv1.kernel": (7, 7, 3, 4),
    "neck.fpn_convs.0.conv.kernel": (3, 3, 6, 6),
    "neck.fpn_convs.0.norm.bias": (6,),
    "roi_head.bbox_head.shared_fcs.0.kernel": (54, 10),
    "roi_head.bbox_head.shared_fcs.1.kernel": (10, 12),
    "roi_head.bbox_head.fc_reg.kernel": (5, 4, 12),
    "roi_head.bbox_head.fc_reg.bias": (5, 4),
    "roi_head.mask_head.upsample.kernel": (6, 2, 2, 7),
    "roi_head.mask_head.conv_logits.kernel": (5, 7),
}
NAMES = [
    "backbone.layer1.0.downsample.0.weight",
    "backbone.layer1.0.downsample.1.weight",
    "backbone.layer1.0.downsample.1.running_var",
    "backbone.conv1.weight",
    "neck.fpn_convs.0.conv.weight",
    "neck.fpn_convs.0.gn.bias",
    "roi_head.bbox_head.shared_fcs.0.weight",
    "roi_head.bbox_head.shared_fcs.1.weight",
    "roi_head.bbox_head.fc_reg.weight",
    "roi_head.bbox_head.fc_reg.bias",
    "roi_head.mask_head.upsample.weight",
    "roi_head.mask_head.conv_logits.weight",
]
TORCH_SHAPES = [
    (8, 4, 1, 1),
    (8,),
    (8,),
    (4, 3, 7, 7),
    (6, 6, 3, 3),
    (6,),
    (10, 54),
    (12, 10),
    (20, 12),
    (20,),
    (6, 7, 2, 2),
    (5, 7, 1, 1),
]


@pytest.fixture
def arrays():
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_names_and_shapes_are_those_of_the_reference():
    assert [torch_name(name) for name in SHAPES] == NAMES
    assert [torch_shape(name, SHAPES) for name in SHAPES] == TORCH_SHAPES


def test_there_and_back_is_the_same_bit_for_bit(arrays):
    for name, value in arrays.items():
        np.testing.assert_array_equal(from_torch(name, to_torch(name, value, SHAPES), SHAPES), value)


def test_the_first_linear_layer_reads_channels_before_positions(arrays):
    """Its output on the same RoI features must not depend on the layout."""
    name = "roi_head.bbox_head.shared_fcs.0.kernel"
    pooled = RNG.normal(size=(3, 3, 6)).astype(np.float32)
    weight = to_torch(name, arrays[name], SHAPES)
    ours = pooled.reshape(-1) @ arrays[name]
    np.testing.assert_allclose(weight @ pooled.transpose(2, 0, 1).reshape(-1), ours, atol=1e-5)


def test_a_file_of_the_reference_fills_a_detector(arrays, tmp_path):
    np.savez(tmp_path / "w.npz", **state_dict(arrays), unrelated=np.zeros(3))
    found = to_ours(read_weights(tmp_path / "w.npz"), SHAPES)
    assert set(found) == set(SHAPES)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_bare_resnet_fills_the_backbone(arrays):
    bare = {n.removeprefix("backbone."): v for n, v in state_dict(arrays).items() if n.startswith("backbone.")}
    assert set(to_ours(bare, SHAPES)) == {name for name in SHAPES if name.startswith("backbone.")}


def test_arrays_of_another_class_count_are_left_out(arrays):
    arrays["roi_head.mask_head.conv_logits.kernel"] = np.zeros((9, 7), np.float32)
    assert set(SHAPES) - set(to_ours(state_dict(arrays), SHAPES)) == {"roi_head.mask_head.conv_logits.kernel"}


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"backbone.conv1.weight: shape \(4, 3, 5, 5\), but \(4, 3, 7, 7\)"):
        from_torch("backbone.conv1.kernel", np.zeros((4, 3, 5, 5), np.float32), SHAPES)


@pytest.mark.parametrize("name, content", [("a.npz", b"PK nonsense"), ("a.npz", b""), ("a.txt", b"x")])
def test_a_file_that_holds_no_weights_is_one_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_weights(tmp_path / name)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "none.npz")


def test_filled_weights_depend_on_name_and_seed():
    one = fill("neck.fpn_convs.0.conv.weight", (6, 6, 3, 3), 0)
    assert one.std() == pytest.approx(np.sqrt(2 / 54), rel=0.1)
    np.testing.assert_array_equal(one, fill("neck.fpn_convs.0.conv.weight", (6, 6, 3, 3), 0))
    assert not np.array_equal(one, fill("neck.fpn_convs.1.conv.weight", (6, 6, 3, 3), 0))
    assert not np.array_equal(one, fill("neck.fpn_convs.0.conv.weight", (6, 6, 3, 3), 1))
