"""Anchors: the reference's numbers, their order, and which of them an image trains on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.ops.anchors import AnchorGrid, base_anchors, feature_shapes, grid_anchors, pyramid_anchors

STRIDES, SCALE, RATIOS = (4, 8, 16, 32, 64), 8.0, (0.5, 1.0, 2.0)


def grid_of(bucket):
    return AnchorGrid(tuple(feature_shapes(bucket, STRIDES)), STRIDES, SCALE, RATIOS)


SETTINGS = {"strides": STRIDES, "scale": SCALE, "ratios": RATIOS}


def test_anchors_equal_the_golden_ones(shared):
    with np.load(shared / "reference/golden/mask_rcnn_r50.npz") as golden:
        for stride, expected in zip(STRIDES, golden["base_anchors"], strict=True):
            np.testing.assert_allclose(base_anchors(stride, SCALE, RATIOS), expected, rtol=1e-6)
        height, width = golden["input_shape"][2:]
        levels = pyramid_anchors((int(height), int(width)), **SETTINGS)
        for name, anchors in zip(("P2", "P3", "P4", "P5", "P6"), levels, strict=True):
            key = f"anchors_{name}"
            if key in golden:
                expected, ours = golden[key], anchors
            else:
                assert tuple(golden[f"{key}.shape"]) == anchors.shape
                expected, ours = golden[f"{key}.sample"], anchors.reshape(-1)[:: int(golden[f"{key}.stride"])]
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-4)


def test_anchors_are_ordered_by_row_then_column_then_ratio():
    anchors = grid_anchors((2, 3), 16, SCALE, RATIOS).reshape(2, 3, 3, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    np.testing.assert_allclose(centres[1, 2], np.broadcast_to([32, 16], (3, 2)), atol=1e-4)
    size = anchors[1, 2, :, 2:] - anchors[1, 2, :, :2]
    np.testing.assert_allclose(size[:, 1] / size[:, 0], RATIOS, rtol=1e-5)
    np.testing.assert_allclose(size.prod(-1), (16 * SCALE) ** 2, rtol=1e-5)


def test_feature_maps_round_up():
    assert feature_shapes((96, 136), STRIDES) == [(24, 34), (12, 17), (6, 9), (3, 5), (2, 3)]
    assert [len(a) for a in pyramid_anchors((96, 136), **SETTINGS)] == [24 * 34 * 3, 12 * 17 * 3, 162, 45, 18]


@pytest.mark.parametrize("allowed_border", [-1, 0, 10])
@pytest.mark.parametrize("image_hw", [(97, 150), (128, 192), (20, 64)])
def test_inside_image_follows_the_reference_rule(image_hw, allowed_border):
    bucket = (128, 192)
    padded = [-(-side // 32) * 32 for side in image_hw]
    expected = []
    for stride, anchors in zip(STRIDES, pyramid_anchors(bucket, **SETTINGS), strict=True):
        rows, columns = -(-padded[0] // stride), -(-padded[1] // stride)
        width = -(-bucket[1] // stride)
        for i, (x1, y1, x2, y2) in enumerate(anchors):
            cell = i // len(RATIOS)
            flag = cell // width < rows and cell % width < columns
            if allowed_border >= 0:
                flag &= x1 >= -allowed_border and y1 >= -allowed_border
                flag &= x2 < image_hw[1] + allowed_border and y2 < image_hw[0] + allowed_border
            expected.append(flag)
    grid = grid_of(bucket)
    rule = jax.jit(lambda hw: grid.inside(jnp.arange(grid.starts[-1]), hw, allowed_border=allowed_border))
    flags = np.asarray(rule(jnp.array(image_hw)))
    np.testing.assert_array_equal(flags, expected)
    assert flags.any() or allowed_border == 0


@pytest.mark.parametrize(
    ("file", "allowed_border"),
    [("mask_rcnn_r50", -1), ("mask_rcnn_r50_padded", -1), ("cascade_mask_rcnn_r50", 0)],
)
def test_as_many_anchors_take_part_as_in_the_golden_files(shared, file, allowed_border):
    with np.load(shared / f"reference/golden/{file}.npz") as golden:
        for i in range(2):
            grid = grid_of(tuple(int(x) for x in golden["input_shape"][2:]))
            hw = jnp.array(golden[f"image_{i}"].shape[:2])
            flags = grid.inside(jnp.arange(grid.starts[-1]), hw, allowed_border=allowed_border)
            assert flags.sum() == golden[f"sample_rpn_{i}.counts"][0]


@pytest.mark.parametrize("bucket", [(96, 136), (64, 64), (800, 1344)])
def test_anchors_by_number_are_those_of_the_tables(bucket):
    grid, table = grid_of(bucket), np.concatenate(pyramid_anchors(bucket, **SETTINGS))
    assert grid.starts[-1] == len(table)
    np.testing.assert_array_equal(jax.jit(grid.boxes)(jnp.arange(len(table))), table)
    some = np.random.default_rng(0).integers(0, len(table), (2, 50))
    np.testing.assert_array_equal(grid.boxes(jnp.asarray(some)), table[some])
