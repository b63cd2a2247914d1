"""The whole detector on small settings: what a loss and a detection must fulfil."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from c2am_jax.models import roi_head
from c2am_jax.models.detector import build_model
from c2am_jax.models.layers import interleaved

KEYS = jax.random.split(jax.random.key(7), 2)


@pytest.fixture(scope="module")
def usual(tiny, make_inputs):
    """Gradients, losses and metrics of a usual batch."""
    gradients, (losses, metrics) = tiny.gradients(make_inputs(2), KEYS)
    return gradients, losses, metrics


def test_losses_and_gradients_are_finite(usual):
    gradients, losses, metrics = usual
    assert set(losses) == {"rpn_cls", "rpn_box", "cls", "box", "mask"}
    assert all(np.isfinite(v) and v > 0 for v in losses.values())
    assert all(np.isfinite(g).all() for g in gradients.values())
    assert metrics["roi/positive"] > 0 and metrics["roi/sampled"] <= 32
    assert 0 <= metrics["roi/accuracy"] <= 1


def test_everything_that_trains_gets_a_gradient_and_frozen_stages_do_not_train(tiny, usual):
    gradients = usual[0]
    assert {n for n, g in gradients.items() if not np.any(g)} == set()
    frozen = ("backbone.conv1", "backbone.bn1", "backbone.layer1")
    assert not any(name.startswith(frozen) for name in tiny.detector.params)
    assert all(name.startswith(frozen) or name.endswith((".mean", ".var")) for name in tiny.detector.rest)


def test_padded_ground_truths_change_nothing(tiny, usual, make_inputs):
    inputs = make_inputs(2)

    def replaced(a, value):
        return jnp.where(inputs.valid.reshape(2, 4, *[1] * (a.ndim - 2)), a, value)

    other = dataclasses.replace(
        inputs,
        boxes=replaced(inputs.boxes, jnp.array([1.0, 2.0, 60.0, 61.0])),
        labels=replaced(inputs.labels, 3),
        masks=replaced(inputs.masks, 1),
        mask_frames=replaced(inputs.mask_frames, 0.0),
    )
    gradients, (losses, _) = tiny.gradients(other, KEYS)
    for name, value in losses.items():
        assert value == usual[1][name], name
    for name, value in gradients.items():
        np.testing.assert_array_equal(value, usual[0][name])


def test_images_without_ground_truth_train_as_background(tiny, make_inputs):
    inputs = make_inputs(2)
    empty = dataclasses.replace(inputs, valid=jnp.zeros_like(inputs.valid))
    gradients, (losses, metrics) = tiny.gradients(empty, KEYS)
    assert losses["box"] == losses["mask"] == losses["rpn_box"] == 0
    assert losses["cls"] > 0 and losses["rpn_cls"] > 0
    assert metrics["roi/positive"] == 0
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_the_choice_of_samples_depends_on_the_key_only(tiny, usual, make_inputs):
    again = tiny.gradients(make_inputs(2), KEYS)[1][0]
    other = tiny.gradients(make_inputs(2), jax.random.split(jax.random.key(8), 2))[1][0]
    assert again == usual[1]
    assert other["rpn_cls"] != again["rpn_cls"]


def test_detections_are_sorted_inside_the_image_and_labelled(tiny, settings, make_inputs):
    hw = jnp.array([[64, 64], [40, 50]], jnp.int32)
    found = tiny.predict(make_inputs(2).image, hw)
    assert found.masks.shape == (2, 12, 28, 28)
    for i in range(2):
        valid = np.asarray(found.valid[i])
        count = valid.sum()
        assert count > 0 and valid[:count].all()
        scores, boxes = np.asarray(found.scores[i, :count]), np.asarray(found.boxes[i, :count])
        assert (np.diff(scores) <= 0).all() and (scores > settings.test.score_threshold).all()
        assert (boxes >= 0).all() and (boxes[:, 2:] <= np.asarray(hw[i])[::-1]).all()
        assert (np.asarray(found.labels[i]) < settings.num_classes).all()
        masks = np.asarray(found.masks[i])
        assert (masks[:count] > 0).all() and (masks < 1).all() and (masks[count:] == 0).all()


def test_detections_do_not_depend_on_the_other_images_of_the_batch(tiny, make_inputs):
    first, second = make_inputs(2), make_inputs(2, seed=5)
    swapped = jnp.stack([second.image[0], first.image[0]])
    alone = tiny.predict(first.image, first.image_hw)
    among = tiny.predict(swapped, first.image_hw)
    for field in ("boxes", "scores", "labels", "masks"):
        np.testing.assert_allclose(getattr(alone, field)[0], getattr(among, field)[1], atol=1e-5)


def test_the_mask_head_computes_the_channel_of_the_label(tiny, settings):
    head = tiny.detector.module().roi_head.mask_head
    head.conv_logits.bias[...] = jnp.arange(5.0)
    pooled = jax.random.normal(jax.random.key(0), (3, 14, 14, settings.fpn.channels))
    labels = jnp.array([4, 0, 2])
    everything = jnp.einsum("nhwc,kc->nkhw", interleaved(head.hidden(pooled)), head.conv_logits.kernel[...])
    everything += jnp.arange(5.0)[:, None, None]
    np.testing.assert_allclose(head(pooled, labels), everything[jnp.arange(3), labels], atol=1e-5)


def test_masks_in_chunks_are_those_of_all_detections_at_once(tiny, make_inputs, monkeypatch):
    monkeypatch.setattr(roi_head, "MASK_CHUNK", 5)  # 12 detections: two chunks and a rest, which is empty here
    inputs, valid = make_inputs(2), jnp.arange(12) < jnp.array([[10], [3]])
    boxes = jnp.tile(inputs.boxes, (1, 3, 1)) + jnp.arange(12.0)[:, None] / 4

    @jax.jit
    def both(detector, image):
        model = detector.module()
        found = model.features(image), boxes, jnp.tile(inputs.labels, (1, 3)), valid
        head = model.roi_head
        return head._mask_probabilities(*found), head._mask_probabilities_in_chunks(*found)

    whole, chunks = both(tiny.detector, inputs.image)
    np.testing.assert_allclose(chunks, whole, atol=1e-6)
    np.testing.assert_array_equal((whole > 0).all((2, 3)), valid)
    assert np.ptp(np.asarray(whole)[np.asarray(valid)], axis=0).max() > 1e-3


def test_two_devices_with_an_image_each_equal_one_with_both(tiny, usual, make_inputs):
    def gradients(detector, inputs, keys):
        def total(params):
            model = dataclasses.replace(detector, params=params).module()
            losses, metrics, _ = model.loss(inputs, keys, model.roi_head.init_loss_state(), axis_name="data")
            return sum(losses.values()), (losses, metrics)

        return jax.grad(total, has_aux=True)(detector.params)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    whole, split = PartitionSpec(), PartitionSpec("data")
    spread = jax.shard_map(gradients, mesh=mesh, in_specs=(whole, split, split), out_specs=whole)
    found, (losses, metrics) = jax.jit(spread)(tiny.detector, make_inputs(2), KEYS)
    for expected, value in zip(usual, (found, losses, metrics), strict=True):
        for name in expected:
            np.testing.assert_allclose(value[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_an_unknown_loss_names_the_choices(settings):
    with pytest.raises(ValueError, match="softmax, cosine, c2am"):
        build_model(settings, {"name": "focal"})
