"""RoIAlign against a plain loop of the reference's rule; all backends."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from c2am_jax.ops import roi_align as roi_align_module
from c2am_jax.ops.roi_align import assign_levels, batched_roi_align, pool, roi_align
from c2am_jax.ops.sampling_matrix import sampling_matrix

BACKENDS = ("matmul", "window", "atlas")
STRIDES = (4, 8)


def bilinear(feature, y, x):
    height, width, _ = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature.shape[-1])
    y, x = max(y, 0), max(x, 0)
    y0, x0 = int(y), int(x)
    if y0 >= height - 1:
        y0 = y1 = y = height - 1
    else:
        y1 = y0 + 1
    if x0 >= width - 1:
        x0 = x1 = x = width - 1
    else:
        x1 = x0 + 1
    fy, fx = y - y0, x - x0
    top = feature[y0, x0] * (1 - fx) + feature[y0, x1] * fx
    bottom = feature[y1, x0] * (1 - fx) + feature[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def plain_roi_align(feature, box, stride, out):
    """One RoI, one bin, one sample at a time."""
    x1, y1, x2, y2 = (v / stride - 0.5 for v in box)
    bin_h, bin_w = (y2 - y1) / out, (x2 - x1) / out
    rows, columns = max(math.ceil(bin_h), 0), max(math.ceil(bin_w), 0)
    result = np.zeros((out, out, feature.shape[-1]))
    for i in range(out):
        for j in range(out):
            for a in range(rows):
                for b in range(columns):
                    y = y1 + i * bin_h + (a + 0.5) * bin_h / rows
                    x = x1 + j * bin_w + (b + 0.5) * bin_w / columns
                    result[i, j] += bilinear(feature, y, x)
    return result / max(rows * columns, 1)


BOXES = {
    "inside": [10.3, 12.7, 60.1, 50.9],
    "one pixel": [30.0, 30.0, 31.0, 31.0],
    "beyond left and top": [-40.0, -30.0, 20.0, 25.0],
    "beyond right and bottom": [80.0, 60.0, 190.0, 140.0],
    "wholly outside": [300.0, 300.0, 340.0, 350.0],
    "flat and wide": [0.0, 40.0, 128.0, 42.0],
    "tall and thin": [50.0, -5.0, 51.5, 96.0],
    "whole image": [0.0, 0.0, 128.0, 96.0],
    "no area": [20.0, 20.0, 20.0, 60.0],
    "at the far corner": [120.0, 90.0, 128.0, 96.0],
}


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((96 // s, 128 // s, 3)), jnp.float32) for s in STRIDES]


def plain_matrix(low, high, size, out, cells):
    """One axis, one sample at a time."""
    result = np.zeros((out, cells))
    count = max(math.ceil((high - low) / out), 0)
    for i in range(out):
        for k in range(count):
            at = low + (i + (k + 0.5) / count) * (high - low) / out
            if -1 <= at <= size:
                at = min(max(at, 0), size - 1)
                result[i] += np.maximum(1 - np.abs(at - np.arange(cells)), 0)
    return result / max(count, 1)


INTERVALS = {
    "samples exactly on -1 and on the size": (-2.5, 9.5, 5),
    "samples exactly on cells": (-0.5, 11.5, 12),
    "many samples": (-31.7, 402.9, 12),
    "few samples": (3.2, 3.9, 12),
    "next to nothing": (4.0, 4.0 + 1e-5, 12),
    "beside the cells": (20.0, 30.0, 12),
    "one cell": (-0.4, 0.7, 1),
    "empty": (3.0, 3.0, 12),
    "reversed": (6.0, 3.0, 12),
}


@pytest.mark.parametrize("out", [4, 7])
def test_matrix_of_one_axis_is_the_mean_over_its_samples(out):
    low, high, size = (np.array(v) for v in zip(*INTERVALS.values(), strict=True))
    low, high = low.astype(np.float32), high.astype(np.float32)
    matrices = jax.jit(lambda *intervals: sampling_matrix(*intervals, out=out, cells=14))
    found = matrices(jnp.asarray(low), jnp.asarray(high), jnp.asarray(size))
    for name, matrix, *interval in zip(INTERVALS, found, low.tolist(), high.tolist(), size, strict=True):
        np.testing.assert_allclose(matrix, plain_matrix(*interval, out, 14), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("out", [7, 14])
def test_equals_the_plain_loop(features, backend, out):
    boxes = np.array(list(BOXES.values()) * 2, np.float32)
    levels = np.repeat([0, 1], len(BOXES)).astype(np.int32)
    align = jax.jit(lambda f, b, v: roi_align(f, b, v, strides=STRIDES, output_size=out, backend=backend))
    found = np.asarray(align(features, jnp.asarray(boxes), jnp.asarray(levels)))
    for number, (box, level) in enumerate(zip(boxes, levels, strict=True)):
        expected = plain_roi_align(np.asarray(features[level], np.float64), box, STRIDES[level], out)
        name = f"{list(BOXES)[number % len(BOXES)]}, level {level}"
        np.testing.assert_allclose(found[number], expected, atol=2e-5, err_msg=name)


def test_backends_agree_in_values_and_gradients_for_a_batch(features, monkeypatch):
    monkeypatch.setattr(roi_align_module, "CHUNK_ELEMENTS", 7 * 32 * 3 * 16)  # of 40 RoIs: 16, 16 and 8
    rng = np.random.default_rng(1)
    batch = [jnp.stack([f, f[::-1]]) for f in features]
    corners = rng.uniform(-20, 130, (2, 40, 2))
    boxes = jnp.asarray(np.concatenate([corners, corners + rng.uniform(1, 90, (2, 40, 2))], -1), jnp.float32)
    levels = jnp.asarray(rng.integers(0, 2, (2, 40)), jnp.int32)
    weights = jnp.asarray(rng.standard_normal((2, 40, 7, 7, 3)), jnp.float32)

    def run(backend):
        def total(f):
            found = batched_roi_align(f, boxes, levels, strides=STRIDES, output_size=7, backend=backend)
            return (weights * found).sum(), found

        return jax.jit(jax.grad(total, has_aux=True))(batch)

    (gradient_a, value_a), (gradient_b, value_b) = run("matmul"), run("window")
    np.testing.assert_allclose(value_a, value_b, atol=1e-5)
    for a, b in zip(gradient_a, gradient_b, strict=True):
        assert float(jnp.abs(a).max()) > 0.1
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_is_the_transpose(features, backend):
    boxes = jnp.asarray(list(BOXES.values()), jnp.float32)
    levels = jnp.arange(len(BOXES), dtype=jnp.int32) % 2

    def align(f):
        return roi_align(f, boxes, levels, strides=STRIDES, output_size=7, backend=backend)

    weights = jnp.asarray(np.random.default_rng(2).standard_normal((len(BOXES), 7, 7, 3)), jnp.float32)

    def both_sides(features):
        aligned, back = jax.vjp(align, features)
        inner = sum((f * g).sum() for f, g in zip(features, back(weights)[0], strict=True))
        return (aligned * weights).sum(), inner

    np.testing.assert_allclose(*jax.jit(both_sides)(features), rtol=1e-4)


def test_memory_of_the_matmul_backend_is_bounded_by_the_chunk(monkeypatch):
    monkeypatch.setattr(roi_align_module, "CHUNK_ELEMENTS", 1 << 14)
    rois, side, channels = 256, 32, 32

    def total(feature, boxes):
        levels = jnp.zeros(rois, jnp.int32)
        return (roi_align([feature], boxes, levels, strides=(4,), output_size=7, backend="matmul") ** 2).sum()

    step = jax.jit(jax.grad(total)).lower(jnp.zeros((side, side, channels)), jnp.zeros((rois, 4))).compile()
    whole = rois * 7 * side * channels * 4
    assert step.memory_analysis().temp_size_in_bytes < whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_boxes_get_no_gradient(features, backend):
    levels = jnp.zeros(1, jnp.int32)

    def total(boxes):
        return roi_align(features, boxes, levels, strides=STRIDES, output_size=7, backend=backend).sum()

    assert (jax.jit(jax.grad(total))(jnp.array([[3.0, 4.0, 50.0, 60.0]])) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_inside_shard_map(features, backend):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    batch = [jnp.stack([f, f]) for f in features]
    boxes = jnp.asarray([[list(BOXES.values())[0]]] * 2, jnp.float32)
    levels = jnp.zeros((2, 1), jnp.int32)

    def total(f, b, v):
        return jax.lax.psum(batched_roi_align(f, b, v, strides=STRIDES, output_size=7, backend=backend).sum(), "data")

    spec = PartitionSpec("data")
    mapped = jax.shard_map(jax.grad(total), mesh=mesh, in_specs=(spec, spec, spec), out_specs=spec)
    spread = jax.jit(mapped)(batch, boxes, levels)

    def alone(f):
        return batched_roi_align(f, boxes, levels, strides=STRIDES, output_size=7, backend=backend).sum()

    plain = jax.jit(jax.grad(alone))(batch)
    for a, b in zip(spread, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_levels_follow_the_square_root_of_the_area():
    sides = jnp.array([1.0, 55.9, 56.0, 111.9, 112.0, 224.0, 447.0, 448.0, 5000.0])
    boxes = jnp.stack([sides * 0, sides * 0, sides, sides], -1)
    np.testing.assert_array_equal(assign_levels(boxes), [0, 0, 0, 0, 1, 2, 2, 3, 3])


def test_levels_equal_the_recorded_ones(shared):
    with np.load(shared / "reference" / "golden" / "mask_rcnn_r50.npz") as golden:
        boxes, levels = golden["fixed_rois"][:, 1:], golden["fixed_levels"]
    np.testing.assert_array_equal(assign_levels(jnp.asarray(boxes)), levels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sets_with_several_grids_are_each_pooled_as_alone(features, backend):
    features = [feature[None] for feature in features]
    boxes = jnp.asarray([[[3.0, 4, 40, 30], [0, 0, 60, 9], [10, 10, 20, 60]]])
    levels = jnp.asarray([[0, 1, 0]])
    rule = {"strides": STRIDES, "backend": backend}

    def together(features):
        sets, own_levels = [boxes, boxes[:, :0], boxes[:, 1:]], [levels, levels[:, :0], levels[:, 1:]]
        return pool(features, sets, own_levels, grids=[(7, 3), (7,), (2,)], **rule)

    def alone(features):
        parts = ((boxes, levels, 7), (boxes, levels, 3), (boxes[:, 1:], levels[:, 1:], 2))
        one, other, last = (batched_roi_align(features, b, v, output_size=side, **rule) for b, v, side in parts)
        return [[one, other], [jnp.zeros((1, 0, 7, 7, one.shape[-1]))], [last]]

    def with_gradient(function):
        def total(features):
            found = function(features)
            return sum((part**2).sum() for own in found for part in own), found

        return jax.jit(jax.grad(total, has_aux=True))(features)

    for ours, expected in zip(*map(jax.tree.leaves, (with_gradient(together), with_gradient(alone))), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_keep_their_type_and_gradients_are_summed_in_float32(features, backend):
    """Many RoIs on one cell: sums in bfloat16 would stop growing at 256."""
    features = [jnp.zeros((1, *feature.shape), jnp.bfloat16) for feature in features]
    boxes, levels = jnp.tile(jnp.asarray([[[8.0, 8, 12, 12]]]), (1, 600, 1)), jnp.zeros((1, 600), jnp.int32)
    rule = {"strides": STRIDES, "output_size": 1, "backend": backend}

    def total(features):
        pooled = batched_roi_align(features, boxes, levels, **rule)
        assert pooled.dtype == jnp.bfloat16
        return pooled.astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total))(features)
    assert gradient[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient[0].astype(jnp.float32).sum((0, 1, 2)), 600, rtol=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_bfloat16_a_value_is_within_its_roundings(features, backend):
    """Four at most: of both weights, of their product or of a sum over rows, of the result; each is half of 2^-8."""
    boxes = jnp.asarray(list(BOXES.values()), jnp.float32)
    levels = jnp.arange(len(BOXES), dtype=jnp.int32) % 2
    narrow = [feature.astype(jnp.bfloat16) for feature in features]

    def align(features, backend):
        found = roi_align(features, boxes, levels, strides=STRIDES, output_size=7, backend=backend)
        return np.asarray(found, np.float32)

    wide = [feature.astype(jnp.float32) for feature in narrow]
    error = np.abs(align(narrow, backend) - align(wide, "window"))
    assert (error <= 4.1 * 2**-9 * align([jnp.abs(feature) for feature in wide], "window") + 1e-6).all()
    assert error.max() > 0


def test_unknown_backend_is_named(features):
    with pytest.raises(ValueError, match="auto, matmul or window"):
        roi_align(
            features[:1],
            jnp.zeros((1, 4)),
            jnp.zeros(1, jnp.int32),
            strides=(4,),
            output_size=7,
            backend="gather",
        )
