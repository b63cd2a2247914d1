"""PyTorch names, layouts and files."""

import numpy as np
import pytest

from c2am_jax.errors import UserError
from c2am_jax.interop.fill import fill
from c2am_jax.weights.foreign import fit, read_weights, to_reference_names
from c2am_jax.weights.names import from_torch, state_dict, to_torch, torch_name, torch_shape

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


def fitted(arrays, **options):
    """What `fit` makes of arrays under any known names."""
    pixels = options.pop("pixels", "")
    return fit(to_reference_names(arrays, source="w.npz", pixels=pixels), SHAPES, source="w.npz", **options)


def test_a_file_of_the_reference_fills_a_detector(arrays, tmp_path):
    np.savez(tmp_path / "w.npz", **state_dict(arrays), unrelated=np.zeros(3))
    found = fitted(read_weights(tmp_path / "w.npz").arrays)
    assert set(found.arrays) == set(SHAPES) and found.unexpected == ["unrelated"] and not found.missing
    for name, value in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value)


def test_wrapped_names_and_what_is_no_weight_are_understood(arrays):
    theirs = {f"module.{n}": v for n, v in state_dict(arrays).items()}
    theirs |= {"data_preprocessor.mean": np.zeros(3), "module.backbone.bn1.num_batches_tracked": np.zeros(())}
    found = fitted(theirs)
    assert set(found.arrays) == set(SHAPES) and not found.unexpected


def test_a_bare_resnet_fills_the_backbone(arrays):
    bare = {n.removeprefix("backbone."): v for n, v in state_dict(arrays).items() if n.startswith("backbone.")}
    found = fitted(bare | {"fc.weight": np.zeros((1000, 8)), "fc.bias": np.zeros(1000)})
    assert set(found.arrays) == {name for name in SHAPES if name.startswith("backbone.")}
    assert found.missing and not found.unexpected and "missing and start random" in found.summary()


def test_another_class_count_has_to_be_asked_for(arrays):
    theirs = state_dict(arrays) | {"roi_head.mask_head.conv_logits.weight": np.zeros((9, 7, 1, 1), np.float32)}
    with pytest.raises(UserError, match=r"conv_logits.weight \(9, 7, 1, 1\) instead of .*reset_classifier"):
        fitted(theirs)
    found = fitted(theirs, reset_classifier=True)
    assert found.reset == ["roi_head.mask_head.conv_logits.kernel"] and len(found.arrays) == len(SHAPES) - 1


def test_other_shapes_and_other_backbones_are_refused(arrays):
    theirs = state_dict(arrays)
    with pytest.raises(UserError, match="neck.fpn_convs.0.conv.weight .* another model"):
        fitted(theirs | {"neck.fpn_convs.0.conv.weight": np.zeros((9, 6, 3, 3), np.float32)})
    with pytest.raises(UserError, match="backbone.layer3.7.conv1.weight: a backbone of another depth"):
        fitted(theirs | {"backbone.layer3.7.conv1.weight": np.zeros((2, 2, 1, 1), np.float32)})
    with pytest.raises(UserError, match="no array in it fits"):
        fitted({"encoder.weight": np.zeros(3)})


def test_what_would_compute_something_else_is_refused(arrays):
    with pytest.raises(UserError, match="stride in the 1x1"):
        fitted(state_dict(arrays), pixels="bgr")
    with pytest.raises(UserError, match="rgb, bgr"):
        fitted(state_dict(arrays), pixels="hsv")
    with pytest.raises(UserError, match="torchvision's detectors are not supported"):
        fitted({"backbone.body.conv1.weight": np.zeros(3), "roi_heads.box_head.fc6.weight": np.zeros(3)})


DETECTRON2 = {
    "stem.conv1.weight": "backbone.conv1.weight",
    "stem.conv1.norm.running_var": "backbone.bn1.running_var",
    "backbone.bottom_up.res2.0.shortcut.weight": "backbone.layer1.0.downsample.0.weight",
    "backbone.bottom_up.res5.2.shortcut.norm.bias": "backbone.layer4.2.downsample.1.bias",
    "res4.22.conv3.norm.weight": "backbone.layer3.22.bn3.weight",
    "res3.1.conv2.weight": "backbone.layer2.1.conv2.weight",
    "backbone.fpn_lateral2.weight": "neck.lateral_convs.0.conv.weight",
    "backbone.fpn_output5.bias": "neck.fpn_convs.3.conv.bias",
    "proposal_generator.rpn_head.conv.weight": "rpn_head.rpn_conv.weight",
    "proposal_generator.rpn_head.objectness_logits.bias": "rpn_head.rpn_cls.bias",
    "proposal_generator.rpn_head.anchor_deltas.weight": "rpn_head.rpn_reg.weight",
    "roi_heads.box_head.fc1.weight": "roi_head.bbox_head.shared_fcs.0.weight",
    "roi_heads.box_predictor.cls_score.bias": "roi_head.bbox_head.fc_cls.bias",
    "roi_heads.box_predictor.bbox_pred.weight": "roi_head.bbox_head.fc_reg.weight",
    "roi_heads.mask_head.mask_fcn4.weight": "roi_head.mask_head.convs.3.conv.weight",
    "roi_heads.mask_head.deconv.bias": "roi_head.mask_head.upsample.bias",
    "roi_heads.mask_head.predictor.weight": "roi_head.mask_head.conv_logits.weight",
}


def test_names_of_detectron2_are_translated_once_the_pixels_are_told():
    theirs = {name: np.zeros((1, 3, 1, 1), np.float32) for name in DETECTRON2}
    found = to_reference_names(theirs | {"pixel_mean": np.zeros(3)}, source="model_final.pth", pixels="rgb")
    assert set(found) == set(DETECTRON2.values())
    with pytest.raises(UserError, match="model_final.pth: .*--pixels"):
        to_reference_names(theirs, source="model_final.pth")


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"backbone.conv1.weight: shape \(4, 3, 5, 5\), but \(4, 3, 7, 7\)"):
        from_torch("backbone.conv1.kernel", np.zeros((4, 3, 5, 5), np.float32), SHAPES)


BROKEN = [("a.npz", b"PK nonsense"), ("a.npz", b""), ("a.txt", b"x"), ("a.safetensors", b"xx"), ("a.safetensors", b"")]


@pytest.mark.parametrize(("name", "content"), BROKEN)
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
