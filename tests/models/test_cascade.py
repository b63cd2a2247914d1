"""Cascade Mask R-CNN: what its stages train on, how they are weighted, how they agree on a detection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.models.architecture import REFERENCE_CASCADE, CascadeSettings, MaskRCNNSettings, cascade_mask_rcnn
from c2am_jax.models.detector import build_model
from c2am_jax.models.functional import Detector
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.ops import boxes as box_ops
from c2am_jax.structures import Proposals

KEYS = jax.random.split(jax.random.key(7), 2)


@pytest.fixture(scope="module")
def cascade_settings(settings):
    box_head = dataclasses.replace(settings.box_head, class_agnostic=True, match_low_quality=False, smooth_l1_beta=1.0)
    return dataclasses.replace(settings, box_head=box_head, cascade=REFERENCE_CASCADE)


@pytest.fixture(scope="module")
def model(cascade_settings):
    built = build_model(cascade_settings, {"name": "c2am"}, seed=1)
    rng = np.random.default_rng(0)
    for head, _ in built.roi_head.stages:
        head.fc_reg.kernel[...] = jnp.asarray(0.1 * rng.normal(size=head.fc_reg.kernel.shape), jnp.float32)
    return built


@pytest.fixture(scope="module")
def trained(model, make_inputs):
    """Losses, metrics and gradients of a batch."""
    detector = Detector.of(model)
    inputs = make_inputs(2)

    @jax.jit
    def run(params):
        def total(params):
            model = dataclasses.replace(detector, params=params).module()
            losses, metrics, _ = model.loss(inputs, KEYS, model.roi_head.init_loss_state())
            return sum(losses.values()), (losses, metrics)

        return jax.grad(total, has_aux=True)(params)

    gradients, (losses, metrics) = run(detector.params)
    return losses, metrics, gradients


@pytest.fixture(scope="module")
def features(model, make_inputs):
    return jax.jit(lambda image: model.features(image))(make_inputs(2).image)


def proposals_of(inputs):
    """The ground truths, moved by a pixel."""
    return Proposals(inputs.boxes + 1.0, jnp.ones(inputs.valid.shape), inputs.valid)


def test_every_stage_has_losses_metrics_and_gradients(trained):
    losses, metrics, gradients = trained
    stages = {f"s{stage}.{name}" for stage in range(3) for name in ("cls", "box", "mask")}
    assert set(losses) == {"rpn_cls", "rpn_box"} | stages
    assert all(np.isfinite(v) for v in losses.values()) and losses["s2.cls"] > 0
    assert metrics["s0/roi/positive"] > 0 and "s2/margin/mean" in metrics
    for stage in range(3):
        for part in (f"bbox_head.{stage}.fc_cls.kernel", f"bbox_head.{stage}.shared_fcs.0.kernel"):
            assert np.any(gradients[f"roi_head.{part}"]), part


def test_losses_carry_the_weight_of_their_stage(model, make_inputs, features, monkeypatch):
    inputs, head = make_inputs(2), model.roi_head
    samples = [head.sample(0, proposals_of(inputs), inputs, None)] * 3

    def one(stage, *args, **_):
        return ({"cls": 1.0, "box": 2.0}, {"seen": 3.0}, f"state {stage}")

    monkeypatch.setattr(RoIHead, "_stage_loss", lambda self, *args, **kwargs: one(*args, **kwargs))
    losses, metrics, states = head.loss(features, None, inputs, None, head.init_loss_state(), samples=samples)
    assert losses == {"s0.cls": 1, "s0.box": 2, "s1.cls": 0.5, "s1.box": 1, "s2.cls": 0.25, "s2.box": 0.5}
    assert metrics == {"s0/seen": 3, "s1/seen": 3, "s2/seen": 3}
    assert states == ["state 0", "state 1", "state 2"]


def test_a_stage_trains_on_the_refined_boxes_of_the_one_before_without_its_ground_truths(
    model, make_inputs, features, monkeypatch
):
    inputs, head = make_inputs(2), model.roi_head
    proposals = proposals_of(inputs)
    first = head.sample(0, proposals, inputs, None)
    assert np.asarray(first.is_gt).sum(1).tolist() == [3, 3]  # the fourth ground truth is padding
    x = head.box_features(0, features, first.boxes)
    refined = head.refine(0, x, first.boxes, inputs.image_hw)
    deltas = head.stages[0][0].fc_reg(x)[:, 0].reshape(first.boxes.shape)
    expected = box_ops.decode_deltas(first.boxes, deltas, (0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(refined, jnp.clip(expected, 0, 64), atol=1e-4)

    seen = []
    sample, stage_loss = RoIHead.sample, lambda self, *args, **_: ({}, {}, {})

    def spy(self, stage, proposals, *args):
        seen.append(proposals)
        return sample(self, stage, proposals, *args)

    monkeypatch.setattr(RoIHead, "sample", spy)
    monkeypatch.setattr(RoIHead, "_stage_loss", stage_loss)
    head.loss(features, proposals, inputs, None, head.init_loss_state())
    np.testing.assert_allclose(seen[1].boxes, refined, atol=1e-4)
    np.testing.assert_array_equal(seen[1].valid, first.valid & ~first.is_gt)


def test_later_stages_ask_for_a_better_overlap(model, make_inputs):
    inputs, head = make_inputs(1), model.roi_head
    # IoU 0.65 with the first ground truth: positive for stages 0 and 1 only.
    x1, y1, x2, y2 = inputs.boxes[0, 0]
    box = jnp.array([[[x1, y1, x1 + 0.65 * (x2 - x1), y2]]])
    proposals = Proposals(box, jnp.ones((1, 1)), jnp.ones((1, 1), bool))
    positives = [int(head.sample(stage, proposals, inputs, None).positive.sum()) for stage in range(3)]
    assert positives == [4, 4, 3]  # three ground truths themselves


def test_refinement_passes_no_gradient(model, make_inputs, features):
    head, boxes = model.roi_head, make_inputs(2).boxes
    hw = jnp.full((2, 2), 64)

    def total(scale):
        x = head.box_features(0, [scale * f for f in features], boxes)
        return head.refine(0, x, boxes, hw).sum()

    assert float(jax.grad(total)(1.0)) == 0


def test_logits_are_averaged_and_masks_are_a_mean_of_probabilities(model, make_inputs, features):
    head, hw = model.roi_head, jnp.full((2, 2), 64)
    boxes = make_inputs(2).boxes
    proposals = Proposals(boxes, jnp.ones(boxes.shape[:2]), jnp.ones(boxes.shape[:2], bool))
    mean, last, deltas = head.classify(features, proposals, hw)
    logits, at = [], boxes
    for stage, (box_head, _) in enumerate(head.stages):
        x = head.box_features(stage, features, at)
        logits.append(head.classification.logits(x, box_head.classifier()))
        used, at = at, head.refine(stage, x, at, hw)
    np.testing.assert_allclose(mean.reshape(8, -1), sum(logits) / 3, atol=1e-4)
    np.testing.assert_allclose(last, used, atol=1e-4)
    assert deltas.shape == (2, 4, 1, 4)

    labels = jnp.asarray([[0, 1, 2, 3], [4, 0, 1, 2]])
    found = features, boxes, labels, jnp.ones(labels.shape, bool)
    each = [jax.nn.sigmoid(head.mask_logits(stage, features, boxes, labels)) for stage in range(3)]
    for masks in (head._mask_probabilities(*found), head._mask_probabilities_in_chunks(*found)):
        np.testing.assert_allclose(masks.reshape(each[0].shape), sum(each) / 3, atol=1e-5)


def test_settings_of_the_reference():
    settings = cascade_mask_rcnn(num_classes=7)
    assert [stage.positive_iou for stage in settings.box_stages] == [0.5, 0.6, 0.7]
    assert settings.box_stages[2].delta_stds == (0.033, 0.033, 0.067, 0.067)
    assert settings.rpn.allowed_border == 0 and settings.rpn.post_nms_train == 2000
    assert MaskRCNNSettings.from_dict(dataclasses.asdict(settings)) == settings
    assert len(MaskRCNNSettings().box_stages) == 1


def test_settings_that_do_not_fit_are_refused(settings):
    with pytest.raises(ValueError, match="class_agnostic=False: must be True where cascade has stages"):
        dataclasses.replace(settings, cascade=REFERENCE_CASCADE)
    with pytest.raises(ValueError, match=r"delta_stds=\(\): must be one for each stage of positive_ious=\(0.5, 0.6\)"):
        dataclasses.replace(settings, cascade=CascadeSettings(positive_ious=(0.5, 0.6)))
