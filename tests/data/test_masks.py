"""Masks on the host."""

import numpy as np
import pytest

from c2am_jax.data.masks import BadMask, box_frame, rasterise


def test_a_mask_that_fills_its_box_fills_its_frame():
    raster = np.zeros((40, 50), np.uint8)
    raster[10:30, 5:45] = 1
    assert box_frame(raster, np.array([5.0, 10.0, 45.0, 30.0])).all()


def test_the_frame_keeps_the_shape_of_the_mask():
    raster = np.zeros((40, 40), np.uint8)
    raster[10:30, 10:20] = 1  # left half of the box
    frame = box_frame(raster, np.array([10.0, 10.0, 30.0, 30.0]))
    assert frame[:, :54].all() and not frame[:, 58:].any()


def test_boxes_at_the_border_stay_inside_the_raster():
    frame = box_frame(np.ones((8, 8), np.uint8), np.array([0.0, 0.0, 8.0, 8.0]))
    assert frame.shape == (112, 112) and frame.all()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], "3 points"),
        ([], "3 points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0]], "odd"),
        ([[1.0, 2.0, 3.0, float("nan"), 5.0, 6.0]], "non-finite"),
        ({"size": [3, 3], "counts": [9]}, "size"),
        ("polygon", "neither"),
    ],
)
def test_what_cannot_be_rasterised_says_why(segmentation, reason):
    with pytest.raises(BadMask, match=reason):
        rasterise(segmentation, (10, 10))


def test_uncompressed_rle_and_polygons_agree():
    rectangle = np.zeros((10, 12), int)
    rectangle[2:6, 3:8] = 1
    runs, value, counts = rectangle.flatten(order="F"), 0, [0]
    for pixel in runs:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    from_rle = rasterise({"size": [10, 12], "counts": counts}, (10, 12))
    np.testing.assert_array_equal(from_rle, rectangle)
    np.testing.assert_array_equal(rasterise([[3, 2, 8, 2, 8, 6, 3, 6]], (10, 12)), rectangle)
