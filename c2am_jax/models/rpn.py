"""Region proposal network: head, proposals, and training targets."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2am_jax.losses.detection import binary_cross_entropy, box_regression_sum, global_mean
from c2am_jax.models.layers import Conv
from c2am_jax.models.settings import RPNSettings
from c2am_jax.ops import anchors as anchor_ops
from c2am_jax.ops import boxes as box_ops
from c2am_jax.ops.matching import match
from c2am_jax.ops.nms import nms
from c2am_jax.ops.sampling import Samples, sample
from c2am_jax.structures import Inputs, Proposals

RPNOutput = list[tuple[jax.Array, jax.Array]]


class RPNHead(nnx.Module):
    """One 3x3 convolution shared by all levels, objectness and deltas of A anchors per cell."""

    def __init__(self, channels: int, settings: RPNSettings, *, rngs: nnx.Rngs):
        """All weights N(0, 0.01)."""
        options = {"init": "normal", "rngs": rngs}
        self.num_anchors = len(settings.anchor_ratios)
        self.rpn_conv = Conv(channels, channels, 3, **options)
        self.rpn_cls = Conv(channels, self.num_anchors, 1, **options)
        self.rpn_reg = Conv(channels, 4 * self.num_anchors, 1, **options)
        self.settings = settings

    def __call__(self, features: Sequence[jax.Array]) -> RPNOutput:
        """P2..P6 -> per level logits [B, H, W, A] and deltas [B, H, W, 4 A] (anchor by anchor), float32."""
        output = []
        for feature in features:
            x = jax.nn.relu(self.rpn_conv(feature))
            output.append((self.rpn_cls(x).astype(jnp.float32), self.rpn_reg(x).astype(jnp.float32)))
        return output

    def anchors(self, output: RPNOutput) -> list[np.ndarray]:
        """Anchors [H W A, 4] of each level."""
        settings = self.settings
        return [
            anchor_ops.grid_anchors(cls.shape[1:3], stride, settings.anchor_scale, settings.anchor_ratios)
            for (cls, _), stride in zip(output, settings.strides, strict=True)
        ]

    def propose(self, output: RPNOutput, image_hw: jax.Array, *, train: bool) -> Proposals:
        """Proposals [B, R] in score order: per level the best anchors, decoded, clipped, NMS; then the best overall.

        Reference rule: boxes of zero width or height are dropped. No gradient.
        """
        settings = self.settings
        before = settings.pre_nms_train if train else settings.pre_nms_test
        after = settings.post_nms_train if train else settings.post_nms_test
        output = jax.lax.stop_gradient(output)

        def one_level(anchors, logits, deltas, hw):
            scores, index = jax.lax.top_k(jax.nn.sigmoid(logits), min(before, anchors.shape[0]))
            boxes = box_ops.clip(box_ops.decode_deltas(jnp.asarray(anchors)[index], deltas[index]), hw)
            keep, valid = nms(
                boxes,
                scores,
                (boxes[:, 2:] > boxes[:, :2]).all(-1),
                iou_threshold=settings.nms_iou,
                max_output=min(after, scores.shape[0]),
            )
            return boxes[keep], scores[keep], valid

        def one_image(levels, hw):
            kept = [
                one_level(anchors, cls.reshape(-1), reg.reshape(-1, 4), hw)
                for anchors, (cls, reg) in zip(self.anchors(output), levels, strict=True)
            ]
            boxes, scores, valid = (jnp.concatenate(parts) for parts in zip(*kept, strict=True))
            top, index = jax.lax.top_k(jnp.where(valid, scores, -1.0), min(after, scores.shape[0]))
            valid = top >= 0
            return Proposals(jnp.where(valid[:, None], boxes[index], 0), jnp.where(valid, top, 0), valid)

        return jax.vmap(one_image)(output, image_hw)

    def sample(self, output: RPNOutput, inputs: Inputs, keys: jax.Array | None) -> tuple[Samples, jax.Array]:
        """Anchors that train, [B, S] each, and for each the index of its ground truth.

        `keys` [B] draws them at random; None takes the first ones by index. Anchor indices count all levels of the
        padded batch, finest first.
        """
        settings = self.settings
        anchors = jnp.asarray(np.concatenate(self.anchors(output)))
        bucket = inputs.image.shape[1:3]

        def one(boxes, valid, hw, key):
            trainable = anchor_ops.inside_image(
                bucket,
                hw,
                strides=settings.strides,
                scale=settings.anchor_scale,
                ratios=settings.anchor_ratios,
                allowed_border=settings.allowed_border,
            )
            matches = match(
                box_ops.pairwise_iou(boxes, anchors),
                valid,
                trainable,
                positive_iou=settings.positive_iou,
                negative_iou=settings.negative_iou,
                min_positive_iou=settings.min_positive_iou,
                match_low_quality=True,
            )
            fraction = settings.positive_fraction
            chosen = sample(key, matches.kind, num=settings.samples, positive_fraction=fraction)
            return chosen, matches.gt_index[chosen.index]

        per_image = (inputs.boxes, inputs.valid, inputs.image_hw)
        if keys is None:
            return jax.vmap(lambda *args: one(*args, None))(*per_image)
        return jax.vmap(one)(*per_image, keys)

    def loss(
        self,
        output: RPNOutput,
        inputs: Inputs,
        samples: Samples,
        gt_index: jax.Array,
        *,
        axis_name: str | None = None,
    ) -> dict[str, jax.Array]:
        """Objectness BCE and box regression of the sampled anchors, both over their number in the whole batch."""
        anchors = jnp.asarray(np.concatenate(self.anchors(output)))
        batch = inputs.image.shape[0]
        logits = jnp.concatenate([cls.reshape(batch, -1) for cls, _ in output], 1)
        deltas = jnp.concatenate([reg.reshape(batch, -1, 4) for _, reg in output], 1)

        def one(logits, deltas, boxes, samples, gt_index):
            bce = binary_cross_entropy(logits[samples.index], samples.positive.astype(jnp.float32))
            targets = box_ops.encode_deltas(anchors[samples.index], boxes[gt_index])
            box = box_regression_sum(
                deltas[samples.index], targets, samples.positive, beta=self.settings.smooth_l1_beta
            )
            return jnp.where(samples.valid, bce, 0).sum(), box

        cls, box = jax.vmap(one)(logits, deltas, inputs.boxes, samples, gt_index)
        count = samples.valid.sum()
        return {
            "rpn_cls": global_mean(cls.sum(), count, axis_name),
            "rpn_box": global_mean(box.sum(), count, axis_name),
        }
