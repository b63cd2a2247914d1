"""The golden comparison's stages of training: samples, targets, losses, gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.data.masks import box_frame
from c2am_jax.interop.golden_inference import box_head
from c2am_jax.interop.names import to_torch, torch_name
from c2am_jax.interop.recording import Recording
from c2am_jax.interop.rows import Detector, Row, relative
from c2am_jax.losses import c2am_loss, c2am_margins, cosine_softmax_loss
from c2am_jax.models.functional import Functional
from c2am_jax.ops.anchors import inside_image
from c2am_jax.ops.masks import mask_targets
from c2am_jax.ops.sampling import Samples
from c2am_jax.structures import Inputs, Proposals, RoISamples

LOSS = 1e-4
GRADIENT = 3e-4
# Activations within float32 noise of zero take the other side of a ReLU here than there: a few of the millions, each of
# which changes the gradients of its own channel by up to a hundredth.
FLIPPED = 3e-2
CHAIN = 1e-2  # a proposal more or less, by the same noise, changes the losses of a whole chain by this much
RECORDED_NAMES = {
    "rpn_cls": "loss_rpn_cls",
    "rpn_box": "loss_rpn_bbox",
    "cls": "loss_cls",
    "box": "loss_bbox",
    "mask": "loss_mask",
}


def choose(model, features, proposals, inputs):
    """The first anchors and RoIs by index, as the recordings' sampling takes them."""
    output = model.rpn_head(features)
    anchors, gt_index = model.rpn_head.sample(output, inputs, None)
    return anchors, gt_index, model.roi_head.sample(proposals, inputs, None)


def losses_and_gradients(model, inputs, anchors, gt_index, rois):
    """Every loss and the gradients of their sum, given the samples."""
    functional, params, rest = Functional.of(model)

    def total(params):
        model = functional.merge(params, rest)
        features = model.features(inputs.image, train=True)
        losses = model.rpn_head.loss(model.rpn_head(features), inputs, anchors, gt_index)
        state = model.roi_head.classification.init_state()
        losses |= model.roi_head.loss(features, rois, inputs, state)[0]
        return sum(losses.values()), losses

    gradients, losses = jax.grad(total, has_aux=True)(params)
    return losses, gradients


def recorded_anchors(recording: Recording, detector: Detector, inputs: Inputs) -> tuple[Samples, jax.Array]:
    """The recorded samples of the RPN; the file counts only those anchors that the image trains on."""
    settings = detector.functional.merge(detector.params, detector.rest).settings.rpn
    index = np.zeros((recording.images, settings.samples), np.int32)
    positive, valid = (np.zeros(index.shape, bool) for _ in range(2))
    gt_index = np.zeros(index.shape, np.int32)
    bucket = inputs.image.shape[1:3]
    for i in range(recording.images):
        trainable = inside_image(
            bucket,
            inputs.image_hw[i],
            strides=settings.strides,
            scale=settings.anchor_scale,
            ratios=settings.anchor_ratios,
            allowed_border=settings.allowed_border,
        )
        kept = np.flatnonzero(np.asarray(trainable))
        key = f"sample_rpn_{i}"
        positives, negatives = recording[f"{key}.pos_inds"], recording[f"{key}.neg_inds"]
        count = len(positives) + len(negatives)
        index[i, :count] = kept[np.concatenate([positives, negatives])]
        positive[i, : len(positives)], valid[i, :count] = True, True
        gt_index[i, : len(positives)] = recording[f"{key}.pos_gt"]
    samples = Samples(*(jnp.asarray(a) for a in (index, positive, valid)))
    return samples, jnp.asarray(gt_index)


def compare_training(
    recording: Recording, detector: Detector, features: list[jax.Array], proposals: Proposals
) -> list[Row]:
    """Rows of every stage of training, given P2..P6 and the chain's own training proposals."""
    settings = detector.functional.merge(detector.params, detector.rest).settings
    inputs = recording.inputs()
    anchors, gt_index = recorded_anchors(recording, detector, inputs)
    rois = recording.roi_samples(0, size=settings.box_head.samples, background=settings.num_classes)
    recorded = recording.proposals(train=True, size=settings.rpn.post_nms_train)

    own_anchors, own_gt_index, own_rois = detector.run(choose, features, recorded, inputs)
    same_anchor = (own_anchors.index == anchors.index) & (own_anchors.positive == anchors.positive)
    same_anchor &= own_gt_index * own_anchors.positive == gt_index * anchors.positive
    same_roi = (own_rois.boxes == rois.boxes).all(-1) & (own_rois.labels == rois.labels)
    same_roi &= (own_rois.gt_index == rois.gt_index) & (own_rois.valid == rois.valid)
    rows = [
        Row("sampled anchors", "share different", 1 - float(same_anchor.mean()), 0.005),
        Row("sampled RoIs, recorded proposals", "share different", 1 - float(same_roi.mean()), 0.005),
        *_mask_targets(recording, inputs, rois),
    ]
    losses, gradients = detector.run(losses_and_gradients, inputs, anchors, gt_index, rois)
    rows += _losses(recording, losses)
    rows += _gradients(recording, detector, gradients)
    chain_rois = detector.run(choose, features, proposals, inputs)[2]
    losses, _ = detector.run(losses_and_gradients, inputs, own_anchors, own_gt_index, chain_rois)
    rows.append(Row("loss total, whole chain", "relative", _total_error(recording, losses), CHAIN))
    if recording.kind.endswith("_c2am"):
        rows += _c2am(recording, detector, features, rois)
    return rows


def _losses(recording: Recording, losses: dict[str, jax.Array]) -> list[Row]:
    rows = []
    for name, recorded in RECORDED_NAMES.items():
        expected = float(recording[f"loss.{recorded}"].astype(np.float64).sum())
        error = abs(float(losses[name]) - expected) / max(abs(expected), 1e-12)
        rows.append(Row(f"loss {name}, recorded samples", "relative", error, LOSS))
    return [*rows, Row("loss total, recorded samples", "relative", _total_error(recording, losses), LOSS)]


def _total_error(recording: Recording, losses: dict[str, jax.Array]) -> float:
    expected = float(recording["loss.total"])
    return abs(float(sum(losses.values())) - expected) / expected


def _gradients(recording: Recording, detector: Detector, gradients: dict[str, jax.Array]) -> list[Row]:
    shapes = {name: value.shape for name, value in (detector.params | detector.rest).items()}
    own = {torch_name(n): to_torch(n, np.asarray(g), shapes) for n, g in gradients.items()}
    names = [str(name) for name in recording["grad_names"]]
    if set(names) != set(own):
        return [Row("gradients", "names differ", float("inf"), 0)]
    norm_errors, value_errors = [], []
    for name, norm, sample in zip(names, recording["grad_l2"], recording["grad_sample"], strict=True):
        flat = own[name].reshape(-1)
        ours = np.zeros(16)
        values = flat[:: _sample_stride(flat.size)][:16]
        ours[: values.size] = values
        norm_errors.append(abs(np.linalg.norm(flat.astype(np.float64)) - norm) / max(norm, 1e-12))
        value_errors.append(np.abs(ours - sample).max() / max(np.abs(flat).max(), 1e-12))
    values = "16 values of each parameter's over its largest"
    return [
        Row("gradients", "norm of each parameter's, relative, worst", float(max(norm_errors)), GRADIENT),
        Row("gradients", f"{values}, median", float(np.median(value_errors)), GRADIENT),
        Row("gradients", f"{values}, worst", float(max(value_errors)), FLIPPED),
    ]


def _sample_stride(size: int) -> int:
    """Smallest prime that is at least size / 16; 1 for up to 16 values."""
    number = -(-size // 16)
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def _mask_targets(recording: Recording, inputs: Inputs, rois: RoISamples) -> list[Row]:
    """From full-size masks, and from those that training stores (in the frame of their own box)."""
    shape = tuple(int(side) for side in recording["mask_targets_s0.shape"])
    bits = np.unpackbits(recording["mask_targets_s0.bits"], axis=1)[:, : shape[1] * shape[2]]
    expected = bits.reshape(shape).astype(bool)
    crop = jax.jit(jax.vmap(lambda *args: mask_targets(*args, size=shape[-1])))
    positive = np.asarray(rois.positive)
    most = int(positive.sum(1).max())
    chosen = (rois.gt_index[:, :most], rois.boxes[:, :most])
    full = np.asarray(crop(inputs.masks, inputs.mask_frames, *chosen))[positive[:, :most]] > 0
    boxes = np.asarray(inputs.boxes)
    stored = [
        [box_frame(m, b) for m, b in zip(ms, bs, strict=True)]
        for ms, bs in zip(np.asarray(inputs.masks), boxes, strict=True)
    ]
    framed = np.asarray(crop(jnp.asarray(np.array(stored)), inputs.boxes, *chosen))[positive[:, :most]] > 0
    union = np.maximum((framed | expected).sum((1, 2)), 1)
    iou = np.where((framed | expected).any((1, 2)), (framed & expected).sum((1, 2)) / union, 1)
    return [
        Row(
            "mask targets, full-size masks",
            "share of bits different",
            float(np.mean(full != expected)),
            0.005,
        ),
        Row("mask targets, box-frame masks", "1 - IoU, mean", float(1 - iou.mean()), 0.03),
    ]


def _c2am(recording: Recording, detector: Detector, features: list[jax.Array], rois: RoISamples) -> list[Row]:
    """The classifier's margins and losses on the recorded RoIs."""
    x, logits, _ = detector.run(box_head, features, rois.boxes)
    kernel = detector.params["roi_head.bbox_head.fc_cls.kernel"]
    valid = np.asarray(rois.valid)
    labels = jnp.asarray(np.asarray(rois.labels)[valid])
    x, logits = x[valid], np.asarray(logits)[valid]
    margins = np.asarray(c2am_margins(kernel, labels))
    per_roi = c2am_loss(x, kernel, labels)
    rows = [
        Row("C2AM labels", "share wrong", float(np.mean(labels != recording["c2am_labels_s0"])), 0),
        relative("C2AM weight norms", recording.error("fc_cls_norms_s0", jnp.linalg.norm(kernel, axis=0))),
        relative("C2AM logits", recording.error("c2am_logits_s0", logits)),
        relative("C2AM margins", recording.error("c2am_margins_s0", margins)),
        relative("C2AM loss per RoI", recording.error("c2am_loss_per_roi_s0", per_roi)),
    ]
    variants = {
        "alpha0": cosine_softmax_loss(x, kernel, labels),
        "alpha1": c2am_loss(x, kernel, labels, alpha=1.0),
        "fg_only": c2am_loss(x, kernel, labels, background="foreground_only"),
    }
    for name, value in variants.items():
        expected = float(recording[f"c2am_loss_{name}_s0"])
        rows.append(Row(f"C2AM loss {name}", "relative", abs(float(value.mean()) - expected) / expected, LOSS))
    return rows
