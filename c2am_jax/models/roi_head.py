"""Second stage: RoI samples, box and mask losses, final detections."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from c2am_jax.losses.classification import Classification
from c2am_jax.losses.detection import box_regression_sum, global_mean, global_sum, mask_mean_sum
from c2am_jax.models.box_head import BoxHead
from c2am_jax.models.mask_head import MaskHead
from c2am_jax.models.settings import MaskRCNNSettings
from c2am_jax.ops import boxes as box_ops
from c2am_jax.ops.masks import mask_targets
from c2am_jax.ops.matching import POSITIVE, match
from c2am_jax.ops.nms import multiclass_nms
from c2am_jax.ops.roi_align import assign_levels, batched_roi_align
from c2am_jax.ops.sampling import sample
from c2am_jax.ops.varying import vary_like
from c2am_jax.structures import Detections, Inputs, Proposals, RoISamples

ROI_LEVELS = 4  # P2..P5; P6 is for proposals only
MASK_CHUNK = 32  # detections per step of the mask head at test


class RoIHead(nnx.Module):
    """`bbox_head` and `mask_head` on RoIAlign features of P2..P5."""

    def __init__(self, settings: MaskRCNNSettings, classification: Classification, *, rngs: nnx.Rngs):
        """`classification` decides the classifier, its loss and its scores."""
        channels, classes = settings.fpn.channels, settings.num_classes
        self.bbox_head = BoxHead(channels, classes, classification.classifier, settings.box_head, rngs=rngs)
        self.mask_head = MaskHead(channels, classes, settings.mask_head, rngs=rngs)
        self.settings, self.classification = settings, classification

    def pool(self, features: Sequence[jax.Array], boxes: jax.Array, size: int) -> jax.Array:
        """RoIAlign of boxes [B, R, 4], each on its level: [B, R, size, size, C]."""
        levels = assign_levels(boxes, finest_scale=self.settings.box_head.finest_scale, num_levels=ROI_LEVELS)
        strides = self.settings.rpn.strides[:ROI_LEVELS]
        return batched_roi_align(features[:ROI_LEVELS], boxes, levels, strides=strides, output_size=size)

    def box_features(self, features: Sequence[jax.Array], boxes: jax.Array) -> jax.Array:
        """What classifier and regressor read: [B, R, 4] -> [B * R, D]."""
        pooled = self.pool(features, boxes, self.settings.box_head.pool_size)
        return self.bbox_head(pooled.reshape(-1, *pooled.shape[2:]))

    def mask_logits(self, features: Sequence[jax.Array], boxes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits of each box's label: [B, R, 4] and [B, R] -> [B * R, 28, 28]; any label stands for background."""
        pooled = self.pool(features, boxes, self.settings.mask_head.pool_size)
        known = jnp.minimum(labels, self.settings.num_classes - 1).reshape(-1)
        return self.mask_head(pooled.reshape(-1, *pooled.shape[2:]), known)

    def sample(self, proposals: Proposals, inputs: Inputs, keys: jax.Array | None) -> RoISamples:
        """RoIs that train, [B, S]: ground truths count as proposals and come first (reference rule). No gradient."""
        head = self.settings.box_head
        background = self.settings.num_classes

        def one(proposals, gt_boxes, gt_labels, gt_valid, key):
            matches = match(
                box_ops.pairwise_iou(gt_boxes, proposals.boxes),
                gt_valid,
                proposals.valid,
                positive_iou=head.positive_iou,
                negative_iou=head.positive_iou,
                min_positive_iou=head.positive_iou,
                match_low_quality=head.match_low_quality,
            )
            kind = jnp.concatenate([jnp.where(gt_valid, POSITIVE, -1), matches.kind])
            gt_index = jnp.concatenate([jnp.arange(gt_boxes.shape[0], dtype=jnp.int32), matches.gt_index])
            boxes = jnp.concatenate([gt_boxes, proposals.boxes])
            chosen = sample(key, kind, num=head.samples, positive_fraction=head.positive_fraction)
            matched = jnp.where(chosen.positive, gt_index[chosen.index], 0)
            return RoISamples(
                boxes=jnp.where(chosen.valid[:, None], boxes[chosen.index], 0),
                labels=jnp.where(chosen.positive, gt_labels[matched], background),
                gt_index=matched,
                positive=chosen.positive,
                valid=chosen.valid,
            )

        per_image = jax.lax.stop_gradient((proposals, inputs.boxes, inputs.labels, inputs.valid))
        if keys is None:
            return jax.vmap(lambda *args: one(*args, None))(*per_image)
        return jax.vmap(one)(*per_image, keys)

    def loss(
        self,
        features: Sequence[jax.Array],
        samples: RoISamples,
        inputs: Inputs,
        loss_state: Any,
        *,
        axis_name: str | None = None,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], Any]:
        """Losses "cls", "box" and "mask", metrics, and the new state of the classification loss.

        Classification and regression divide by the number of sampled RoIs, the mask loss by the number of
        positives, each over the whole batch (reference rule).
        """
        settings = self.settings
        x = self.box_features(features, samples.boxes)
        kernel, bias = self.bbox_head.classifier()
        labels = samples.labels.reshape(-1)
        weights = samples.valid.reshape(-1).astype(jnp.float32)
        method = self.classification
        per_sample, loss_state = method.loss(x, kernel, bias, labels, weights, loss_state, axis_name)
        count = weights.sum()

        # Positives come first, so regression and masks read a prefix of each image's samples.
        most = int(settings.box_head.samples * settings.box_head.positive_fraction)
        batch = samples.boxes.shape[0]
        first = jax.tree.map(lambda a: a[:, :most], samples)
        matched = jnp.take_along_axis(inputs.boxes, first.gt_index[..., None], 1)
        targets = box_ops.encode_deltas(first.boxes, matched, settings.box_head.delta_stds)
        own = x.reshape(batch, -1, x.shape[-1])[:, :most].reshape(-1, x.shape[-1])
        deltas = self.bbox_head.fc_reg.of_class(own, first.labels.reshape(-1)).reshape(targets.shape)
        box = box_regression_sum(deltas, targets, first.positive, beta=settings.box_head.smooth_l1_beta)

        logits = self.mask_logits(features, first.boxes, first.labels)
        size = logits.shape[-1]
        crop = lambda *args: mask_targets(*args, size=size)  # noqa: E731
        mask = jax.vmap(crop)(inputs.masks, inputs.mask_frames, first.gt_index, first.boxes)
        mask_sum = mask_mean_sum(logits, mask.reshape(logits.shape), first.positive.reshape(-1))

        losses = {
            "cls": global_mean((per_sample * weights).sum(), count, axis_name),
            "box": global_mean(box, count, axis_name),
            "mask": global_mean(mask_sum, first.positive.sum(), axis_name),
        }
        predicted = method.scores(jax.lax.stop_gradient(own), kernel, bias).argmax(-1)
        correct = (predicted == first.labels.reshape(-1)) & first.positive.reshape(-1)
        metrics = {
            "roi/accuracy": global_mean(correct.sum(), first.positive.sum(), axis_name),
            "roi/positive": global_sum(first.positive.sum().astype(jnp.float32), axis_name),
            "roi/sampled": global_sum(count, axis_name),
        }
        metrics |= method.metrics(*jax.lax.stop_gradient((x, kernel, labels, weights)), axis_name)
        return losses, metrics, loss_state

    def detect(self, features: Sequence[jax.Array], proposals: Proposals, image_hw: jax.Array) -> Detections:
        """Final detections [B, D] in input pixels, masks included."""
        settings, batch = self.settings, proposals.boxes.shape[0]
        x = self.box_features(features, proposals.boxes)
        kernel, bias = self.bbox_head.classifier()
        scores = self.classification.scores(x, kernel, bias)[:, : settings.num_classes]
        deltas = self.bbox_head.fc_reg(x)
        per_image = lambda a: a.reshape(batch, -1, *a.shape[1:])  # noqa: E731

        def one(scores, deltas, rois, valid, hw):
            def candidate_boxes(roi, label):
                own = deltas[roi, jnp.minimum(label, deltas.shape[1] - 1)].astype(jnp.float32)
                return box_ops.clip(box_ops.decode_deltas(rois[roi], own, settings.box_head.delta_stds), hw)

            return multiclass_nms(
                scores,
                candidate_boxes,
                valid,
                score_threshold=settings.test.score_threshold,
                iou_threshold=settings.test.nms_iou,
                max_output=settings.test.max_detections,
            )

        boxes, scores, labels, _, valid = jax.vmap(one)(
            per_image(scores), per_image(deltas), proposals.boxes, proposals.valid, image_hw
        )
        masks = self._detected_masks(features, boxes, labels, valid)
        return Detections(boxes, scores, labels, masks, valid)

    def _detected_masks(self, features, boxes, labels, valid):
        """Probabilities [B, D, 28, 28], chunk by chunk.

        RoI features of all detections never exist at once, and chunks behind the last detection cost nothing.
        """
        batch, detections = labels.shape
        chunk = min(MASK_CHUNK, detections)
        padded = -(-detections // chunk) * chunk
        fill = lambda a: jnp.pad(a, ((0, 0), (0, padded - detections)) + ((0, 0),) * (a.ndim - 2))  # noqa: E731
        split = lambda a: jnp.moveaxis(fill(a).reshape(batch, -1, chunk, *a.shape[2:]), 1, 0)  # noqa: E731

        size = 2 * self.settings.mask_head.pool_size

        def probabilities(part):
            chunk_boxes, chunk_labels, chunk_valid = part
            logits = self.mask_logits(features, chunk_boxes, chunk_labels)
            masks = jax.nn.sigmoid(logits).reshape(batch, chunk, size, size)
            return jnp.where(chunk_valid[..., None, None], masks, 0)

        def one_chunk(part):
            nothing = lambda part: vary_like(jnp.zeros((batch, chunk, size, size)), part[0])  # noqa: E731
            return jax.lax.cond(part[2].any(), probabilities, nothing, part)

        masks = jax.lax.map(one_chunk, (split(boxes), split(labels), split(valid)))
        return jnp.moveaxis(masks, 0, 1).reshape(batch, padded, *masks.shape[3:])[:, :detections]
