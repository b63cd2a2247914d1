"""Second stage: RoI samples, box and mask losses, final detections."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from c2am_jax.losses.classification import Classification, Samples
from c2am_jax.losses.detection import box_regression_sum, global_mean, global_sum, mask_mean_sum
from c2am_jax.losses.methods.forest import parents_in
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.models.architecture import MaskRCNNSettings
from c2am_jax.models.box_head import BoxHead
from c2am_jax.models.mask_head import MaskHead
from c2am_jax.ops import boxes as box_ops
from c2am_jax.ops.images import per_image
from c2am_jax.ops.masks import mask_targets
from c2am_jax.ops.matching import POSITIVE, MatchRule, match
from c2am_jax.ops.nms import multiclass_nms
from c2am_jax.ops.platforms import by_platform
from c2am_jax.ops.roi_align import Grids, assign_levels, pool
from c2am_jax.ops.sampling import sample
from c2am_jax.ops.varying import vary_like
from c2am_jax.structures import Detections, Inputs, Proposals, RoISamples

ROI_LEVELS = 4  # P2..P5; P6 is for proposals only
MASK_CHUNK = 32  # detections per step of the mask head at test


class RoIHead(nnx.Module):
    """`bbox_head` and `mask_head` on RoIAlign features of P2..P5.

    Mask R-CNN has one stage. In a cascade both are lists with one head per stage, and a stage works on the boxes that
    the one before refined.
    """

    def __init__(
        self,
        settings: MaskRCNNSettings,
        classification: Classification,
        *,
        statistics: ClassStatistics | None = None,
        rngs: nnx.Rngs,
    ):
        """`classification` decides the classifier, its loss and its scores; `statistics` know the geometric tree."""
        channels, classes = settings.fpn.channels, settings.num_classes
        boxes = [BoxHead(channels, classes, classification, stage, rngs=rngs) for stage in settings.box_stages]
        shapes = {}
        if settings.mask_head.geometric:
            known = statistics or ClassStatistics.uniform(classes)
            shapes = {"class_channel": parents_in("geometric", known, "", classes)}
        masks = [MaskHead(channels, classes, settings.mask_head, **shapes, rngs=rngs) for _ in boxes]
        self.is_cascade = bool(settings.cascade.positive_ious)
        self.bbox_head = nnx.List(boxes) if self.is_cascade else boxes[0]
        self.mask_head = nnx.List(masks) if self.is_cascade else masks[0]
        self.settings, self.classification = settings, classification

    @property
    def stages(self) -> list[tuple[BoxHead, MaskHead]]:
        """The heads of each stage."""
        if self.is_cascade:
            return list(zip(self.bbox_head, self.mask_head, strict=True))
        return [(self.bbox_head, self.mask_head)]

    def init_loss_state(self) -> list[Any]:
        """State of the classification loss before the first step, one per stage."""
        classes = self.settings.num_classes
        return [self.classification.init_state(classes, stage.fc_channels) for stage in self.settings.box_stages]

    @jax.named_scope("roi_align")
    def pool(self, features: Sequence[jax.Array], sets: Sequence[tuple[jax.Array, Grids]]) -> list[list[jax.Array]]:
        """RoIAlign of sets of boxes [B, R, 4], each on its level: [B, R, side, side, C] for each of a set's grids."""
        boxes, grids = zip(*sets, strict=True)
        scale = self.settings.box_head.finest_scale
        levels = [assign_levels(own, finest_scale=scale, num_levels=ROI_LEVELS) for own in boxes]
        strides = self.settings.rpn.strides[:ROI_LEVELS]
        return pool(features[:ROI_LEVELS], boxes, levels, strides=strides, grids=grids)

    def box_features(self, stage: int, features: Sequence[jax.Array], boxes: jax.Array) -> jax.Array:
        """What classifier and regressor of a stage read: [B, R, 4] -> [B * R, D]."""
        return self._box_features(stage, self.pool(features, [(boxes, (self.settings.box_head.pool_size,))])[0][0])

    @jax.named_scope("box_head")
    def _box_features(self, stage: int, pooled: jax.Array) -> jax.Array:
        return self.stages[stage][0](pooled.reshape(-1, *pooled.shape[2:]))

    def features_of_samples(
        self, stage: int, features: Sequence[jax.Array], samples: RoISamples
    ) -> tuple[jax.Array, jax.Array]:
        """What a stage reads of its samples: `box_features` of all, and the pooled features of the mask head.

        Positives come first, so the masks' are those of a prefix [B, P] of each image's samples: [B, P, S, S, C].
        """
        most, sides = self._most_positive(stage), (self.settings.box_head.pool_size, self.settings.mask_head.pool_size)
        first, rest = samples.boxes[:, :most], samples.boxes[:, most:]
        (own, masks), (others,) = self.pool(features, [(first, sides), (rest, sides[:1])])
        return self._box_features(stage, jnp.concatenate([own, others], 1)), masks

    def _most_positive(self, stage: int) -> int:
        head = self.settings.box_stages[stage]
        return int(head.samples * head.positive_fraction)

    def refine(self, stage: int, x: jax.Array, boxes: jax.Array, image_hw: jax.Array) -> jax.Array:
        """Boxes [B, R, 4] after a stage's regression, given what `box_features` made of them. No gradient."""
        head = self.stages[stage][0]
        deltas = jax.lax.stop_gradient(head.fc_reg(x)[:, 0].astype(jnp.float32)).reshape(boxes.shape)
        return jax.vmap(box_ops.clip)(box_ops.decode_deltas(boxes, deltas, head.settings.delta_stds), image_hw)

    def mask_logits(self, stage: int, features: Sequence[jax.Array], boxes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits of each box's label: [B, R, 4] and [B, R] -> [B * R, 28, 28]; any label stands for background."""
        pooled = self.pool(features, [(boxes, (self.settings.mask_head.pool_size,))])[0][0]
        return self._mask_logits(stage, pooled, labels)

    @jax.named_scope("mask_head")
    def _mask_logits(self, stage: int, pooled: jax.Array, labels: jax.Array) -> jax.Array:
        return self.stages[stage][1](pooled.reshape(-1, *pooled.shape[2:]), labels.reshape(-1))

    @jax.named_scope("roi_sampling")
    def sample(self, stage: int, proposals: Proposals, inputs: Inputs, keys: jax.Array | None) -> RoISamples:
        """RoIs that train, [B, S]: ground truths count as proposals and come first (reference rule). No gradient."""
        head = self.settings.box_stages[stage]
        background = self.settings.num_classes
        rule = MatchRule(head.positive_iou, head.positive_iou, head.positive_iou, head.match_low_quality)

        def one(proposals, gt_boxes, gt_labels, gt_valid, key):
            matches = match(box_ops.pairwise_iou(gt_boxes, proposals.boxes), gt_valid, proposals.valid, rule)
            kind = jnp.concatenate([jnp.where(gt_valid, POSITIVE, -1), matches.kind])
            gt_index = jnp.concatenate([jnp.arange(gt_boxes.shape[0], dtype=jnp.int32), matches.gt_index])
            boxes = jnp.concatenate([gt_boxes, proposals.boxes])
            key = None if key is None else jax.random.fold_in(key, stage)
            chosen = sample(key, kind, num=head.samples, positive_fraction=head.positive_fraction)
            matched = jnp.where(chosen.positive, gt_index[chosen.index], 0)
            return RoISamples(
                boxes=jnp.where(chosen.valid[:, None], boxes[chosen.index], 0),
                labels=jnp.where(chosen.positive, gt_labels[matched], background),
                gt_index=matched,
                positive=chosen.positive,
                is_gt=chosen.positive & (chosen.index < gt_boxes.shape[0]),
                valid=chosen.valid,
            )

        arguments = jax.lax.stop_gradient((proposals, inputs.boxes, inputs.labels, inputs.valid))
        if keys is None:
            return per_image(lambda *image: one(*image, None), *arguments)
        return per_image(one, *arguments, keys)

    def loss(
        self,
        features: Sequence[jax.Array],
        proposals: Proposals,
        inputs: Inputs,
        keys: jax.Array | None,
        loss_state: Sequence[Any],
        *,
        samples: Sequence[RoISamples] | None = None,
        axis_name: str | None = None,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], list[Any]]:
        """Losses "cls", "box" and "mask", metrics, and the new states of the classification loss.

        In a cascade every name carries its stage ("s0.cls", "s0/roi/accuracy"), every loss its stage's weight. A stage
        trains on the refined samples of the one before; ground truths among them are dropped, then all are put first
        again (reference rule).

        Args:
          features: P2..P6.
          proposals: of the RPN, [B, R].
          inputs: ground truths.
          keys: one per image, for the choice of RoIs; None takes the first by index.
          loss_state: per stage.
          samples: the RoIs of each stage, chosen already.
          axis_name: mesh axis of the means.
        """
        weights = self.settings.cascade.loss_weights or (1.0,)
        losses, metrics, states = {}, {}, []
        for stage, weight in enumerate(weights):
            chosen = self.sample(stage, proposals, inputs, keys) if samples is None else samples[stage]
            x, pooled = self.features_of_samples(stage, features, chosen)
            found, logged, state = self._stage_loss(
                stage, x, pooled, chosen, inputs, loss_state[stage], axis_name=axis_name
            )
            before_loss, before_metric = (f"s{stage}.", f"s{stage}/") if self.is_cascade else ("", "")
            losses |= {f"{before_loss}{name}": weight * value for name, value in found.items()}
            metrics |= {f"{before_metric}{name}": value for name, value in logged.items()}
            states.append(state)
            if stage + 1 < len(weights):
                refined = self.refine(stage, x, chosen.boxes, inputs.image_hw)
                valid = chosen.valid & ~chosen.is_gt
                proposals = Proposals(refined, jnp.zeros(valid.shape), valid)
        return losses, metrics, states

    def _stage_loss(self, stage, x, pooled, samples, inputs, loss_state, *, axis_name):
        """Unweighted losses, metrics and new state of one stage; `x` and `pooled` are `features_of_samples`.

        Classification and regression divide by the number of sampled RoIs, the mask loss by the number of
        positives, each over the whole batch (reference rule).
        """
        box_head, _ = self.stages[stage]
        method, head = self.classification, box_head.classifier()
        labels, weights = samples.labels.reshape(-1), samples.valid.reshape(-1).astype(jnp.float32)
        rois = Samples(x, labels, weights, axis_name)
        with jax.named_scope("classification"):
            per_sample, loss_state = method.loss(rois, head, loss_state)
        count = weights.sum()

        # Positives come first, so regression and masks read a prefix of each image's samples.
        most = self._most_positive(stage)
        first = jax.tree.map(lambda a: a[:, :most], samples)
        own = x.reshape(samples.boxes.shape[0], -1, x.shape[-1])[:, :most].reshape(-1, x.shape[-1])
        box_sum = self._box_sum(box_head, own, first, inputs)
        mask_sum = self._mask_sum(stage, pooled, first, inputs)

        losses = {
            "cls": global_mean((per_sample * weights).sum(), count, axis_name),
            "box": global_mean(box_sum, count, axis_name),
            "mask": global_mean(mask_sum, first.positive.sum(), axis_name),
        }
        predicted = method.scores(jax.lax.stop_gradient(own), head).argmax(-1)
        correct = (predicted == first.labels.reshape(-1)) & first.positive.reshape(-1)
        metrics = {
            "roi/accuracy": global_mean(correct.sum(), first.positive.sum(), axis_name),
            "roi/positive": global_sum(first.positive.sum().astype(jnp.float32), axis_name),
            "roi/sampled": global_sum(count, axis_name),
        }
        metrics |= method.metrics(*jax.lax.stop_gradient((rois, head)))
        return losses, metrics, loss_state

    @jax.named_scope("box_regression")
    def _box_sum(self, box_head: BoxHead, x: jax.Array, samples: RoISamples, inputs: Inputs) -> jax.Array:
        """Regression losses of the positives among samples [B, P] with features [B P, D], summed."""
        settings = box_head.settings
        matched = jnp.take_along_axis(inputs.boxes, samples.gt_index[..., None], 1)
        targets = box_ops.encode_deltas(samples.boxes, matched, settings.delta_stds)
        deltas = box_head.fc_reg.of_class(x, samples.labels.reshape(-1)).reshape(targets.shape)
        return box_regression_sum(deltas, targets, samples.positive, beta=settings.smooth_l1_beta)

    def _mask_sum(self, stage: int, pooled: jax.Array, samples: RoISamples, inputs: Inputs) -> jax.Array:
        """Mask losses of the positives among samples [B, P] with features [B, P, S, S, C], summed."""
        logits = self._mask_logits(stage, pooled, samples.labels)
        crop = functools.partial(mask_targets, size=logits.shape[-1])
        with jax.named_scope("mask_targets"):
            targets = jax.vmap(crop)(inputs.masks, inputs.mask_frames, samples.gt_index, samples.boxes)
        return mask_mean_sum(logits, targets.reshape(logits.shape), samples.positive.reshape(-1))

    def classify(
        self, features: Sequence[jax.Array], proposals: Proposals, image_hw: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Box stages at test: mean of their logits [B, R, L], and boxes [B, R, 4] and deltas [B, R, K', 4] of the last.

        K' is 1 for a class-agnostic head.
        """
        boxes, logits, x = proposals.boxes, [], None
        for stage, (box_head, _) in enumerate(self.stages):
            if x is not None:
                boxes = self.refine(stage - 1, x, boxes, image_hw)
            x = self.box_features(stage, features, boxes)
            with jax.named_scope("classification"):
                logits.append(self.classification.logits(x, box_head.classifier()))
        mean = sum(logits) / len(logits)
        deltas = self.stages[-1][0].fc_reg(x)
        return mean.reshape(*boxes.shape[:2], -1), boxes, deltas.reshape(*boxes.shape[:2], *deltas.shape[1:])

    def detect(self, features: Sequence[jax.Array], proposals: Proposals, image_hw: jax.Array) -> Detections:
        """Final detections [B, D] in input pixels, masks included."""
        settings = self.settings
        logits, rois, deltas = self.classify(features, proposals, image_hw)
        scores = self.classification.activate(logits.reshape(-1, logits.shape[-1]))[:, : settings.num_classes]
        stds = settings.box_stages[-1].delta_stds

        @jax.named_scope("nms")
        def one(scores, deltas, rois, valid, hw):
            def candidate_boxes(roi, label):
                own = deltas[roi, jnp.minimum(label, deltas.shape[1] - 1)].astype(jnp.float32)
                return box_ops.clip(box_ops.decode_deltas(rois[roi], own, stds), hw)

            return multiclass_nms(
                scores,
                candidate_boxes,
                valid,
                score_threshold=settings.test.score_threshold,
                iou_threshold=settings.test.nms_iou,
                max_output=settings.test.max_detections,
            )

        boxes, scores, labels, _, valid = per_image(
            one, scores.reshape(*rois.shape[:2], -1), deltas, rois, proposals.valid, image_hw
        )
        masks = by_platform(
            features, boxes, labels, valid, tpu=self._mask_probabilities, default=self._mask_probabilities_in_chunks
        )
        return Detections(boxes, scores, labels, masks, valid)

    def _mask_probabilities(self, features, boxes, labels, valid):
        """[B, D, 4], [B, D] and [B, D] -> [B, D, 28, 28], the mean over the stages."""
        pooled = self.pool(features, [(boxes, (self.settings.mask_head.pool_size,))])[0][0]
        pooled, own = pooled.reshape(-1, *pooled.shape[2:]), labels.reshape(-1)
        with jax.named_scope("mask_head"):
            masks = [jax.nn.sigmoid(mask_head(pooled, own)) for _, mask_head in self.stages]
        masks = sum(masks) / len(masks)
        return jnp.where(valid[..., None, None], masks.reshape(*labels.shape, *masks.shape[1:]), 0)

    def _mask_probabilities_in_chunks(self, features, boxes, labels, valid):
        """The same: RoI features of all detections never exist at once, and chunks behind the last one cost nothing.

        A TPU would bring the levels into one array for each chunk.
        """
        batch, detections = labels.shape
        chunk = min(MASK_CHUNK, detections)
        padded = -(-detections // chunk) * chunk

        def fill(a):
            return jnp.pad(a, ((0, 0), (0, padded - detections)) + ((0, 0),) * (a.ndim - 2))

        def split(a):
            return jnp.moveaxis(fill(a).reshape(batch, -1, chunk, *a.shape[2:]), 1, 0)

        size = 2 * self.settings.mask_head.pool_size

        def one_chunk(part):
            def nothing(part):
                return vary_like(jnp.zeros((batch, chunk, size, size)), part[0])

            return jax.lax.cond(part[2].any(), lambda part: self._mask_probabilities(features, *part), nothing, part)

        masks = jax.lax.map(one_chunk, (split(boxes), split(labels), split(valid)))
        return jnp.moveaxis(masks, 0, 1).reshape(batch, padded, *masks.shape[3:])[:, :detections]
