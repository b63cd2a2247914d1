"""The golden comparison's stages from image to final detections."""

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.evaluation.encoding import paste_probabilities
from c2am_jax.interop.comparison import Check, CompiledDetector, match_boxes, relative, unmatched
from c2am_jax.interop.recording import Recording
from c2am_jax.models.layers import interleaved
from c2am_jax.ops.anchors import base_anchors
from c2am_jax.ops.roi_align import assign_levels
from c2am_jax.structures import Detections, Proposals

PIXEL = 0.01  # how far from one half a pixel's probability may lie on the other side: boxes differ by rounding too


def forward(model, image, image_hw):
    """C2..C5, P2..P6, RPN output, proposals with the settings of the test and of training."""
    stages = model.backbone(image)
    features = model.neck(stages)
    output = model.rpn_head(features)

    def propose(train):
        return model.rpn_head.propose(output, image_hw, train=train)

    return stages, features, output, propose(False), propose(True)


def box_head(model, features, boxes, *, stage):
    """Features, class logits and deltas of RoIs [B, R, 4], as [B, R, ...]."""
    head = model.roi_head.stages[stage][0]
    x = model.roi_head.box_features(stage, features, boxes)
    logits = model.roi_head.classification.logits(x, head.classifier())

    def split(a):
        return a.reshape(*boxes.shape[:2], -1)

    return split(x), split(logits), split(head.fc_reg(x))


def classify(model, features, proposals, image_hw):
    """All box stages: mean logits, and the last stage's boxes and deltas, [B, R, ...]."""
    logits, boxes, deltas = model.roi_head.classify(features, proposals, image_hw)
    return logits, boxes, deltas.reshape(*boxes.shape[:2], -1)


def pooled(model, features, boxes):
    """RoIAlign for the box and for the mask head, and the levels."""
    settings = model.settings
    sizes = settings.box_head.pool_size, settings.mask_head.pool_size
    levels = assign_levels(boxes, finest_scale=settings.box_head.finest_scale)
    return *model.roi_head.pool(features, [(boxes, sizes)])[0], levels


def all_masks(model, roi_features, *, stage):
    """Mask logits of every class, [N, K, 28, 28], and what the predictor reads."""
    head = model.roi_head.stages[stage][1]
    hidden = interleaved(head.hidden(roi_features))
    predictor = head.conv_logits
    everything = jnp.einsum("nhwc,kc->nkhw", hidden, predictor.kernel[...])
    return everything + predictor.bias[...][:, None, None], hidden


def some_masks(model, hidden, labels, *, stage):
    """Mask logits [n, m, 28, 28] of the classes [m], by the way that the detector takes."""
    predictor = model.roi_head.stages[stage][1].conv_logits

    def of_label(label):
        return predictor(hidden, jnp.full(hidden.shape[0], label))

    return jnp.stack([of_label(label) for label in labels], 1)


def detect(model, features, proposals, image_hw):
    """Detections of the whole chain, masks included, from features and proposals."""
    return model.roi_head.detect(features, proposals, image_hw)


def compare_inference(
    recording: Recording, detector: CompiledDetector
) -> tuple[list[Check], list[jax.Array], Proposals]:
    """Rows of every stage of inference; also the features P2..P6 and the training proposals."""
    inputs = recording.inputs()
    rows = [relative("input", recording.error("input", nchw(inputs.image)))]
    stages, features, output, test, train = detector.run(forward, inputs.image, inputs.image_hw)
    for level, feature in enumerate(stages, 2):
        rows.append(relative(f"C{level}", recording.error(f"C{level}", nchw(feature))))
    for level, feature in enumerate(features, 2):
        rows.append(relative(f"P{level}", recording.error(f"P{level}", nchw(feature))))
    rows += _rpn(recording, detector, output)
    rows += _proposals(recording, test, "")
    rows += _proposals(recording, train, "train_")
    rows += _fixed_rois(recording, detector, features)
    rows += _recorded_proposals(recording, detector, features, inputs.image_hw)
    rows += _detections(recording, detector.run(detect, features, test, inputs.image_hw))
    return rows, features, train


def nchw(x: jax.Array) -> np.ndarray:
    """[B, H, W, C] -> numpy [B, C, H, W]."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def _rpn(recording, detector, output):
    model = detector.model
    settings = model.settings.rpn
    base = [base_anchors(s, settings.anchor_scale, settings.anchor_ratios) for s in settings.strides]
    rows = [relative("base anchors", recording.error("base_anchors", np.stack(base)))]
    grid = model.rpn_head.grid([cls.shape[1:3] for cls, _ in output])
    for level, ((cls, reg), first, end) in enumerate(zip(output, grid.starts[:-1], grid.starts[1:], strict=True), 2):
        rows.append(relative(f"RPN logits P{level}", recording.error(f"rpn_cls_P{level}", nchw(cls))))
        rows.append(relative(f"RPN deltas P{level}", recording.error(f"rpn_bbox_P{level}", nchw(reg))))
        anchors = grid.boxes(jnp.arange(first, end))
        rows.append(relative(f"anchors P{level}", recording.error(f"anchors_P{level}", anchors)))
    return rows


def _proposals(recording: Recording, proposals: Proposals, prefix: str) -> list[Check]:
    shares = []
    for i in range(recording.images):
        valid = np.asarray(proposals.valid[i])
        recorded = recording[f"{prefix}proposals_{i}"], recording[f"{prefix}proposal_scores_{i}"]
        pairs = match_boxes(proposals.boxes[i][valid], proposals.scores[i][valid], *recorded, iou=0.999)
        shares.append(unmatched(pairs))
    stage = "proposals, training" if prefix else "proposals, test"
    return [Check(stage, "share without partner", max(shares), 0.005)]


def _fixed_rois(recording, detector, features):
    """Heads on the same RoIs everywhere; every RoI runs on every image, and the right image is picked after."""
    rois = recording["fixed_rois"]
    image, position = rois[:, 0].astype(int), np.arange(len(rois))
    boxes = jnp.broadcast_to(jnp.asarray(rois[:, 1:]), (recording.images, len(rois), 4))

    def pick(x):
        return x[image, position]

    small, large, levels = (pick(x) for x in detector.run(pooled, features, boxes))
    rows = [
        Check("levels of fixed RoIs", "share wrong", float(np.mean(levels != recording["fixed_levels"])), 0),
        relative("RoIAlign 7x7", recording.error("roi7", nchw(small))),
        relative("RoIAlign 14x14", recording.error("roi14", nchw(large))),
    ]
    for stage in range(detector.stages):
        key, at = stage_names(detector, stage)
        _, logits, deltas = (pick(x) for x in detector.run(box_head, features, boxes, stage=stage))
        rows.append(relative(f"class logits, fixed RoIs{at}", recording.error(f"fixed_cls{key}", logits)))
        rows.append(relative(f"box deltas, fixed RoIs{at}", recording.error(f"fixed_deltas{key}", deltas)))
        masks, hidden = detector.run(all_masks, large, stage=stage)
        rows.append(relative(f"mask logits, all classes{at}", recording.error(f"fixed_mask_logits{key}", masks)))
        some = recording[f"fixed_mask_logits_sel{key}"]
        labels = jnp.arange(some.shape[1]) * 300
        own = detector.run(some_masks, hidden[: some.shape[0]], labels, stage=stage)
        error = recording.error(f"fixed_mask_logits_sel{key}", own)
        rows.append(relative(f"mask logits, one channel per RoI{at}", error))
    return rows


def stage_names(detector: CompiledDetector, stage: int) -> tuple[str, str]:
    """What a stage adds to a recorded name and to a row's: nothing unless the detector is a cascade."""
    return (f"_s{stage}", f", stage {stage}") if detector.stages > 1 else ("", "")


def _recorded_proposals(recording, detector, features, image_hw):
    counts = [len(recording[f"proposals_{i}"]) for i in range(recording.images)]
    proposals = recording.proposals(size=max(counts))
    logits, boxes, deltas = detector.run(classify, features, proposals, image_hw)
    cls_error, rois_error, box_error, wrong = [], [], [], []
    for i, count in enumerate(counts):
        own = np.asarray(logits[i, :count])
        cls_error.append(recording.error(f"test_cls_{i}", own))
        box_error.append(recording.error(f"test_deltas_{i}", deltas[i, :count]))
        wrong.append(np.mean(own.argmax(-1) != recording[f"test_argmax_{i}"]))
        if f"test_rois_{i}" in recording:
            rois = np.pad(np.asarray(boxes[i, :count]), ((0, 0), (1, 0)), constant_values=i)
            rois_error.append(recording.error(f"test_rois_{i}", rois))
    refined = [relative("refined boxes, recorded proposals", max(rois_error))] if rois_error else []
    return [
        *refined,
        relative("class logits, recorded proposals", max(cls_error)),
        relative("box deltas, recorded proposals", max(box_error)),
        Check("best class, recorded proposals", "share wrong", float(max(wrong)), 0.002),
    ]


def differing_pixels(probability: np.ndarray, recorded: np.ndarray) -> tuple[float, int, int]:
    """How a mask's pixels differ from a recorded mask.

    One pixel of a tiny mask is a large share of it, so not the share says whether it may differ, but how far its
    probability lies from one half: rounding flips only those that are close.

    Args:
      probability: of each pixel, [h, w].
      recorded: bool [h, w].

    Returns:
      The largest ``|p - 0.5|`` of the pixels that differ, how many they are, and how many either mask covers.
    """
    own = probability >= 0.5
    unlike = own != recorded
    far = float(np.abs(probability[unlike] - 0.5).max(initial=0))
    return far, int(unlike.sum()), int((own | recorded).sum())


def _detections(recording: Recording, detections: Detections) -> list[Check]:
    """Detections of the whole chain, at the original image's size, and the masks of those that have a partner."""
    detections = jax.tree.map(np.asarray, detections)
    missing, mask_error, distance, area_error = [0.0], [0.0], [0.0], [0.0]
    different, covered = 0, 0
    for i in range(recording.images):
        valid = detections.valid[i]
        boxes = detections.boxes[i][valid] / recording.scale
        recorded = recording[f"pred_boxes_{i}"], recording[f"pred_scores_{i}"]
        labels = {"labels": recording[f"pred_labels_{i}"], "other_labels": detections.labels[i][valid]}
        pairs = match_boxes(*recorded, boxes, detections.scores[i][valid], iou=0.99, **labels)
        missing.append(unmatched(pairs))
        shape = recording[f"pred_mask_shape_{i}"]
        hw = (int(shape[1]), int(shape[2]))
        bits = recording[f"pred_mask_bits_{i}"]
        masks = np.unpackbits(bits, axis=1)[:, : hw[0] * hw[1]].reshape(-1, *hw).astype(bool)
        areas = []
        for row, partner in zip(np.flatnonzero(pairs.any(1)), pairs.argmax(1)[pairs.any(1)], strict=True):
            probability = detections.masks[i][valid][partner]
            region, (top, left) = paste_probabilities(probability, boxes[partner], hw)
            area = recording[f"pred_mask_area_{i}"][row]
            areas.append(abs(float((region >= 0.5).sum()) - area) / max(area, 1))
            if row < len(masks):
                own = np.zeros(hw, np.float32)
                own[top : top + region.shape[0], left : left + region.shape[1]] = region
                far, unlike, union = differing_pixels(own, masks[row])
                distance.append(far)
                different, covered = different + unlike, covered + union
                mask_error.append(np.abs(probability - recording[f"pred_mask28_{i}"][row]).max())
        area_error.append(float(np.mean(areas)) if areas else 0.0)
    return [
        Check("detections, whole chain", "share without partner", max(missing), 0.01),
        Check("mask probabilities", "largest difference", float(max(mask_error)), 1e-3),
        Check("pasted masks", "|p - 0.5| of pixels that differ, largest", max(distance), PIXEL),
        Check("pasted masks", "share of pixels that differ", different / max(covered, 1), 0.01),
        Check("pasted masks", "difference of area, mean share", max(area_error), 0.01),
    ]
