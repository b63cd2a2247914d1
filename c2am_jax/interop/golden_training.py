"""The golden comparison's stages of training: samples, targets, losses, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.data.box_masks import box_frame
from c2am_jax.interop.comparison import Check, CompiledDetector, relative
from c2am_jax.interop.golden_inference import box_head, stage_names
from c2am_jax.interop.recording import Recording
from c2am_jax.losses import c2am_loss, c2am_margins, cosine_softmax_loss
from c2am_jax.losses.methods.seesaw import batch_counts, seesaw_loss
from c2am_jax.models.functional import Detector
from c2am_jax.ops.anchors import feature_shapes
from c2am_jax.ops.masks import mask_targets
from c2am_jax.ops.sampling import Chosen
from c2am_jax.structures import Inputs, Proposals, RoISamples
from c2am_jax.weights.names import to_torch, torch_name

LOSS = 1e-4
GRADIENT = 3e-4
# Activations within float32 noise of zero take the other side of a ReLU here than there: a few of the millions, each of
# which changes the gradients of its own channel by up to a hundredth.
FLIPPED = 3e-2
CHAIN = 1e-2  # a proposal more or less, by the same noise, changes the losses of a whole chain by this much
REFINED = 1e-2  # px, between boxes that a stage of a cascade refined here and there
RPN_NAMES = {"rpn_cls": ("loss_rpn_cls",), "rpn_box": ("loss_rpn_bbox",)}
CLS_NAMES = ("loss_cls", "loss_cls_classes", "loss_cls_objectness")
ROI_NAMES = {"cls": CLS_NAMES, "box": ("loss_bbox",), "mask": ("loss_mask",)}


def recorded_names(stages: int) -> dict[str, tuple[str, ...]]:
    """Our losses, and the recorded ones that they are the sum of (as far as a recording has them)."""
    if stages == 1:
        return RPN_NAMES | ROI_NAMES
    return RPN_NAMES | {
        f"s{stage}.{name}": tuple(f"s{stage}.{part}" for part in recorded)
        for stage in range(stages)
        for name, recorded in ROI_NAMES.items()
    }


def choose_anchors(model, features, inputs):
    """The first anchors by index, as the recordings' sampling takes them."""
    return model.rpn_head.sample(features, inputs, None)


def choose_rois(model, features, proposals, inputs, given):
    """The first RoIs by index, of each stage; one refines the samples `given` of the stage before, or the own ones."""
    head, chosen = model.roi_head, []
    for stage in range(len(head.stages)):
        if stage:
            before = (given or chosen)[stage - 1]
            x = head.box_features(stage - 1, features, before.boxes)
            refined = head.refine(stage - 1, x, before.boxes, inputs.image_hw)
            proposals = Proposals(refined, jnp.zeros(refined.shape[:2]), before.valid & ~before.is_gt)
        chosen.append(head.sample(stage, proposals, inputs, None))
    return chosen


def losses_and_gradients(model, inputs, anchors, gt_index, rois, loss_state):
    """Every loss and the gradients of their sum, given the samples."""
    detector = Detector.of(model)

    def total(params):
        model = dataclasses.replace(detector, params=params).module()
        features = model.features(inputs.image, train=True)
        losses = model.rpn_head.loss(features, inputs, anchors, gt_index)
        losses |= model.roi_head.loss(features, None, inputs, None, loss_state, samples=rois)[0]
        return sum(losses.values()), losses

    gradients, losses = jax.grad(total, has_aux=True)(detector.params)
    return losses, gradients


def recorded_anchors(recording: Recording, detector: CompiledDetector, inputs: Inputs) -> tuple[Chosen, jax.Array]:
    """The recorded samples of the RPN; the file counts only those anchors that the image trains on."""
    settings = detector.model.settings.rpn
    index = np.zeros((recording.images, settings.samples), np.int32)
    positive, valid = (np.zeros(index.shape, bool) for _ in range(2))
    gt_index = np.zeros(index.shape, np.int32)
    grid = detector.model.rpn_head.grid(feature_shapes(inputs.image.shape[1:3], settings.strides))
    numbers = jnp.arange(grid.starts[-1])
    for i in range(recording.images):
        trainable = grid.inside(numbers, inputs.image_hw[i], allowed_border=settings.allowed_border)
        kept = np.flatnonzero(np.asarray(trainable))
        key = f"sample_rpn_{i}"
        positives, negatives = recording[f"{key}.pos_inds"], recording[f"{key}.neg_inds"]
        count = len(positives) + len(negatives)
        index[i, :count] = kept[np.concatenate([positives, negatives])]
        positive[i, : len(positives)], valid[i, :count] = True, True
        gt_index[i, : len(positives)] = recording[f"{key}.pos_gt"]
    samples = Chosen(*(jnp.asarray(a) for a in (index, positive, valid)))
    return samples, jnp.asarray(gt_index)


def compare_training(
    recording: Recording, detector: CompiledDetector, features: list[jax.Array], proposals: Proposals
) -> list[Check]:
    """Rows of every stage of training, given P2..P6 and the chain's own training proposals."""
    settings = detector.model.settings
    inputs = recording.inputs()
    anchors, gt_index = recorded_anchors(recording, detector, inputs)

    def of_stage(s):
        return recording.roi_samples(s, size=settings.box_head.samples, background=settings.num_classes)

    rois = [of_stage(stage) for stage in range(detector.stages)]
    recorded = recording.proposals(prefix="train_", size=settings.rpn.post_nms_train)

    own_anchors, own_gt_index = detector.run(choose_anchors, features, inputs)
    same = (own_anchors.index == anchors.index) & (own_anchors.positive == anchors.positive)
    same &= own_gt_index * own_anchors.positive == gt_index * anchors.positive
    rows = [Check("sampled anchors", "share different", 1 - float(same.mean()), 0.005)]
    own_rois = detector.run(choose_rois, features, recorded, inputs, rois)
    for stage, (own, expected) in enumerate(zip(own_rois, rois, strict=True)):
        same = (jnp.abs(own.boxes - expected.boxes) <= (REFINED if stage else 0)).all(-1)
        same &= (own.labels == expected.labels) & (own.valid == expected.valid)
        same &= (own.gt_index == expected.gt_index) & (own.is_gt == expected.is_gt)
        name = f"sampled RoIs, recorded {'samples before' if stage else 'proposals'}{stage_names(detector, stage)[1]}"
        rows.append(Check(name, "share different", 1 - float(same.mean()), 0.005))
        rows += _mask_targets(recording, inputs, expected, stage, stage_names(detector, stage)[1])
    losses, gradients = detector.run(losses_and_gradients, inputs, anchors, gt_index, rois, detector.loss_state)
    rows += _losses(recording, losses, detector.stages)
    rows += _gradients(recording, detector, gradients)
    chain = detector.run(choose_rois, features, proposals, inputs, None)
    losses, _ = detector.run(losses_and_gradients, inputs, own_anchors, own_gt_index, chain, detector.loss_state)
    rows.append(Check("loss total, whole chain", "relative", _total_error(recording, losses), CHAIN))
    for stage, samples in enumerate(rois):
        if recording.kind.endswith("_c2am"):
            rows += _c2am(recording, detector, features, samples, stage)
        if recording.kind.endswith("_seesaw"):
            rows += _seesaw(recording, detector, features, samples, stage)
    return rows


def _losses(recording: Recording, losses: dict[str, jax.Array], stages: int) -> list[Check]:
    rows = []
    for name, recorded in recorded_names(stages).items():
        parts = [recording[f"loss.{part}"] for part in recorded if f"loss.{part}" in recording]
        expected = float(sum(part.astype(np.float64).sum() for part in parts))
        error = abs(float(losses[name]) - expected) / max(abs(expected), 1e-12)
        rows.append(Check(f"loss {name}, recorded samples", "relative", error if parts else float("inf"), LOSS))
    return [*rows, Check("loss total, recorded samples", "relative", _total_error(recording, losses), LOSS)]


def _total_error(recording: Recording, losses: dict[str, jax.Array]) -> float:
    expected = float(recording["loss.total"])
    return abs(float(sum(losses.values())) - expected) / expected


def _gradients(recording: Recording, detector: CompiledDetector, gradients: dict[str, jax.Array]) -> list[Check]:
    shapes = {name: value.shape for name, value in detector.value.arrays.items()}
    own = {torch_name(n): to_torch(n, np.asarray(g), shapes) for n, g in gradients.items()}
    names = [str(name) for name in recording["grad_names"]]
    if set(names) != set(own):
        return [Check("gradients", "names differ", float("inf"), 0)]
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
        Check("gradients", "norm of each parameter's, relative, worst", float(max(norm_errors)), GRADIENT),
        Check("gradients", f"{values}, median", float(np.median(value_errors)), GRADIENT),
        Check("gradients", f"{values}, worst", float(max(value_errors)), FLIPPED),
    ]


def _sample_stride(size: int) -> int:
    """Smallest prime that is at least size / 16; 1 for up to 16 values."""
    number = -(-size // 16)
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def _mask_targets(recording: Recording, inputs: Inputs, rois: RoISamples, stage: int, at: str) -> list[Check]:
    """From full-size masks, and from those that training stores (in the frame of their own box)."""
    shape = tuple(int(side) for side in recording[f"mask_targets_s{stage}.shape"])
    bits = np.unpackbits(recording[f"mask_targets_s{stage}.bits"], axis=1)[:, : shape[1] * shape[2]]
    expected = bits.reshape(shape).astype(bool)
    crop = jax.jit(jax.vmap(lambda *args: mask_targets(*args, size=shape[-1])))
    positive = np.asarray(rois.positive)
    most = int(positive.sum(1).max())
    chosen = (rois.gt_index[:, :most], rois.boxes[:, :most])
    full = np.asarray(crop(inputs.masks, inputs.mask_frames, *chosen))[positive[:, :most]] > 0
    of_images = zip(np.asarray(inputs.masks), np.asarray(inputs.boxes), strict=True)
    stored = [[box_frame(m, b) for m, b in zip(*masks_and_boxes, strict=True)] for masks_and_boxes in of_images]
    framed = np.asarray(crop(jnp.asarray(np.array(stored)), inputs.boxes, *chosen))[positive[:, :most]] > 0
    union = np.maximum((framed | expected).sum((1, 2)), 1)
    iou = np.where((framed | expected).any((1, 2)), (framed & expected).sum((1, 2)) / union, 1)
    return [
        Check(f"mask targets, full-size masks{at}", "share of bits different", float(np.mean(full != expected)), 0.005),
        Check(f"mask targets, box-frame masks{at}", "1 - IoU, mean", float(1 - iou.mean()), 0.03),
    ]


def _on_samples(detector, features, rois, stage):
    """What a stage's classifier reads of the recorded RoIs [N, D], its logits, its kernel, the labels."""
    x, logits, _ = detector.run(box_head, features, rois.boxes, stage=stage)
    valid = np.asarray(rois.valid)
    kernel = detector.model.roi_head.stages[stage][0].classifier().kernel
    return x[valid], np.asarray(logits)[valid], kernel, jnp.asarray(np.asarray(rois.labels)[valid])


def _c2am(recording: Recording, detector: CompiledDetector, features: list[jax.Array], rois: RoISamples, stage: int):
    """A classifier's margins and losses on the recorded RoIs."""
    x, logits, kernel, labels = _on_samples(detector, features, rois, stage)
    key, at = f"_s{stage}", stage_names(detector, stage)[1]
    margins = np.asarray(c2am_margins(kernel, labels))
    per_roi = c2am_loss(x, kernel, labels)
    rows = [
        Check(f"C2AM labels{at}", "share wrong", float(np.mean(labels != recording[f"c2am_labels{key}"])), 0),
        relative(f"C2AM weight norms{at}", recording.error(f"fc_cls_norms{key}", jnp.linalg.norm(kernel, axis=0))),
        relative(f"C2AM logits{at}", recording.error(f"c2am_logits{key}", logits)),
        relative(f"C2AM margins{at}", recording.error(f"c2am_margins{key}", margins)),
        relative(f"C2AM loss per RoI{at}", recording.error(f"c2am_loss_per_roi{key}", per_roi)),
    ]
    variants = {
        "alpha0": cosine_softmax_loss(x, kernel, labels),
        "alpha1": c2am_loss(x, kernel, labels, alpha=1.0),
        "fg_only": c2am_loss(x, kernel, labels, background="foreground_only"),
    }
    for name, value in variants.items():
        expected = float(recording[f"c2am_loss_{name}{key}"])
        rows.append(Check(f"C2AM loss {name}{at}", "relative", abs(float(value.mean()) - expected) / expected, LOSS))
    return rows


def _seesaw(recording: Recording, detector: CompiledDetector, features: list[jax.Array], rois: RoISamples, stage: int):
    """The two parts of the classification loss on the recorded RoIs, before the stage's weight."""
    _, logits, _, labels = _on_samples(detector, features, rois, stage)
    counts = detector.loss_state[stage]["counts"]
    counts = counts + batch_counts(labels, jnp.ones(len(labels)), len(counts))
    weight = (detector.model.settings.cascade.loss_weights or (1.0,))[stage]
    before, at = (f"s{stage}." if detector.stages > 1 else ""), stage_names(detector, stage)[1]
    rows = []
    for name, value in zip(("classes", "objectness"), seesaw_loss(jnp.asarray(logits), labels, counts), strict=True):
        expected = float(recording[f"loss.{before}loss_cls_{name}"].sum())
        error = abs(weight * float(value.mean()) - expected) / expected
        rows.append(Check(f"Seesaw loss {name}{at}", "relative", error, LOSS))
    return rows
