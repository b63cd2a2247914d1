"""Region proposal network: head, proposals, and training targets."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2am_jax.losses.detection import binary_cross_entropy, box_regression_sum, global_mean
from c2am_jax.models.architecture import RPNSettings
from c2am_jax.models.layers import Conv, Frozen
from c2am_jax.ops import boxes as box_ops
from c2am_jax.ops.anchors import AnchorGrid
from c2am_jax.ops.images import per_image
from c2am_jax.ops.matching import MatchRule, match_boxes
from c2am_jax.ops.nms import sorted_nms
from c2am_jax.ops.sampling import Chosen, sample
from c2am_jax.ops.selection import largest, largest_of_parts, rows_of_parts
from c2am_jax.structures import Inputs, Proposals

RPNOutput = list[tuple[jax.Array, jax.Array]]


class RPNHead(nnx.Module):
    """One 3x3 convolution shared by all levels, objectness and deltas of A anchors per cell."""

    def __init__(self, channels: int, settings: RPNSettings, *, class_groups: np.ndarray | None = None, rngs: nnx.Rngs):
        """All weights N(0, 0.01). `class_groups` [K] (0 rare, 1 common, 2 frequent) is for NMS resampling."""
        options = {"init": "normal", "rngs": rngs}
        self.num_anchors = len(settings.anchor_ratios)
        self.rpn_conv = Conv(channels, channels, 3, **options)
        self.rpn_cls = Conv(channels, self.num_anchors, 1, **options)
        self.rpn_reg = Conv(channels, 4 * self.num_anchors, 1, **options)
        self.settings = settings
        if settings.resampling_ious:
            if class_groups is None:
                raise ValueError("model.rpn.resampling_ious needs the frequency group of each class")
            self.class_groups = Frozen(jnp.asarray(class_groups, jnp.int32))

    @jax.named_scope("rpn")
    def __call__(self, features: Sequence[jax.Array]) -> RPNOutput:
        """P2..P6 -> per level logits [B, H, W, A] and deltas [B, H, W, 4 A] (anchor by anchor), float32."""
        output = []
        for feature in features:
            x = jax.nn.relu(self.rpn_conv(feature))
            output.append((self.rpn_cls(x).astype(jnp.float32), self.rpn_reg(x).astype(jnp.float32)))
        return output

    def at(self, features: Sequence[jax.Array], index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `__call__` gives at the anchors `index` [B, S] only: logits [B, S] and deltas [B, S, 4].

        A step trains on a few hundred of some hundred thousand anchors. Reading just their 3x3 neighbourhoods keeps the
        gradient off all other cells, where it is zero.
        """
        batch, channels = features[0].shape[0], features[0].shape[-1]
        heights, widths = (np.array([feature.shape[axis] for feature in features]) for axis in (1, 2))
        starts = np.concatenate([[0], np.cumsum(heights * widths)])
        cell, anchor = index // self.num_anchors, index % self.num_anchors
        level = jnp.searchsorted(jnp.asarray(starts[1:]), cell, side="right")
        start, height, width = (jnp.asarray(a)[level][..., None] for a in (starts[:-1], heights, widths))
        offset = cell[..., None] - start
        y = offset // width + jnp.repeat(jnp.arange(-1, 2), 3)
        x = offset % width + jnp.tile(jnp.arange(-1, 2), 3)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        near = jnp.where(inside, start + y * width + x, 0).reshape(batch, -1)
        levels = [feature.reshape(batch, -1, channels) for feature in features]
        patches = rows_of_parts(levels, near).reshape(*inside.shape, channels)
        patches = jnp.where(inside[..., None], patches, 0)
        kernel = self.rpn_conv.kernel[...].astype(patches.dtype)
        hidden = jnp.einsum("bsnc,ncd->bsd", patches, kernel.reshape(9, channels, -1))
        hidden = jax.nn.relu(hidden + self.rpn_conv.bias[...].astype(hidden.dtype))[:, :, None]
        logits = self.rpn_cls(hidden).astype(jnp.float32)[:, :, 0]
        deltas = self.rpn_reg(hidden).astype(jnp.float32).reshape(*index.shape, self.num_anchors, 4)

        def own(a):
            return jnp.take_along_axis(a, anchor.reshape(*index.shape, *[1] * (a.ndim - 2)), axis=2)[:, :, 0]

        return own(logits), own(deltas)

    def grid(self, shapes: Sequence[tuple[int, ...]]) -> AnchorGrid:
        """Anchors of feature maps P2..P6 with these heights and widths."""
        settings = self.settings
        shapes = tuple((height, width) for height, width in shapes)
        return AnchorGrid(shapes, settings.strides, settings.anchor_scale, settings.anchor_ratios)

    @jax.named_scope("proposals")
    def propose(
        self, output: RPNOutput, image_hw: jax.Array, *, train: bool, inputs: Inputs | None = None
    ) -> Proposals:
        """Proposals [B, R] in score order: per level the best anchors, decoded, clipped, NMS; then the best overall.

        Reference rule: boxes of zero width or height are dropped. No gradient. In training with NMS resampling, which
        reads the ground truths of `inputs`, a proposal near both a rare and a common one may come twice (as in the
        authors' code).
        """
        settings = self.settings
        before = settings.pre_nms_train if train else settings.pre_nms_test
        after = settings.post_nms_train if train else settings.post_nms_test
        output = jax.lax.stop_gradient(output)
        grid = self.grid([cls.shape[1:3] for cls, _ in output])
        before = min(before, max(end - first for first, end in itertools.pairwise(grid.starts)))

        def one_image(levels, hw, truth=None):
            logits = jnp.concatenate([cls.reshape(-1) for cls, _ in levels])
            deltas = jnp.concatenate([reg.reshape(-1, reg.shape[-1]) for _, reg in levels])
            scores, index = largest_of_parts(jax.nn.sigmoid(logits), grid.starts, before)
            boxes = box_ops.decode_deltas(grid.boxes(index), self._own(deltas, index))
            boxes = box_ops.clip(boxes, hw)
            solid = (scores >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
            runs = [(settings.nms_iou, jnp.ones_like(solid))]
            if truth is not None:
                near = self._groups_near(boxes.reshape(-1, 4), *truth)
                runs = zip(settings.resampling_ious, (a.reshape(solid.shape) for a in near), strict=True)
            kept = []
            for threshold, wanted in runs:
                nms = functools.partial(sorted_nms, iou_threshold=threshold, max_output=min(after, before))
                keep, valid = jax.vmap(nms)(boxes, solid)
                own = [jnp.take_along_axis(a, keep, 1) for a in (scores, wanted)]
                kept.append((jnp.take_along_axis(boxes, keep[..., None], 1), own[0], valid & own[1]))
            boxes, scores, valid = (jnp.concatenate(parts, 1) for parts in zip(*kept, strict=True))
            boxes, scores, valid = boxes.reshape(-1, 4), scores.reshape(-1), valid.reshape(-1)
            top, index = largest(jnp.where(valid, scores, -1.0), min(after, scores.shape[0]))
            valid = top >= 0
            return Proposals(jnp.where(valid[:, None], boxes[index], 0), jnp.where(valid, top, 0), valid)

        if not (train and settings.resampling_ious):
            return per_image(one_image, output, image_hw)
        if inputs is None:
            raise ValueError("NMS resampling reads ground truths: hand over the inputs")
        truth = jax.lax.stop_gradient((inputs.boxes, inputs.labels, inputs.valid))
        return per_image(one_image, output, image_hw, truth)

    def _own(self, deltas: jax.Array, index: jax.Array) -> jax.Array:
        """The four deltas [*N, 4] of the anchors `index` [*N], of those [cells, 4 A] of all levels."""
        rows = deltas[index // self.num_anchors]
        anchor = (index % self.num_anchors)[..., None]
        own = rows[..., :4]
        for number in range(1, self.num_anchors):
            own = jnp.where(anchor == number, rows[..., 4 * number : 4 * number + 4], own)
        return own

    def _groups_near(self, boxes, gt_boxes, gt_labels, gt_valid) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Which of boxes [N, 4] are near a rare ground truth, near a common one, near neither: bool [N] each."""
        group = jnp.where(gt_valid, self.class_groups[...][gt_labels], -1)
        near = box_ops.pairwise_iou(gt_boxes, boxes) >= self.settings.resampling_near
        rare, common = ((near & (group == which)[:, None]).any(0) for which in (0, 1))
        return rare, common, ~rare & ~common

    @jax.named_scope("anchor_sampling")
    def sample(self, features: Sequence[jax.Array], inputs: Inputs, keys: jax.Array | None) -> tuple[Chosen, jax.Array]:
        """Anchors of `features` that train, [B, S] each, and for each the index of its ground truth.

        `keys` [B] draws them at random; None takes the first ones by index. Anchor indices count all levels of the
        padded batch, finest first.
        """
        settings = self.settings
        grid = self.grid([feature.shape[1:3] for feature in features])
        rule = MatchRule(
            settings.positive_iou, settings.negative_iou, settings.min_positive_iou, match_low_quality=True
        )
        numbers = jnp.arange(grid.starts[-1], dtype=jnp.int32)
        anchors = grid.boxes(numbers)

        def matched(image):
            boxes, valid, hw = image
            trainable = grid.inside(numbers, hw, allowed_border=settings.allowed_border)
            return match_boxes(boxes, valid, anchors, trainable, rule)

        def chosen(key, matches):
            fraction = settings.positive_fraction
            samples = sample(key, matches.kind, num=settings.samples, positive_fraction=fraction)
            return samples, matches.gt_index[samples.index]

        # One image after the other: each takes as many blocks of ground truths as it has.
        matches = jax.lax.map(matched, (inputs.boxes, inputs.valid, inputs.image_hw))
        if keys is None:
            return per_image(lambda matches: chosen(None, matches), matches)
        return per_image(chosen, keys, matches)

    @jax.named_scope("rpn_loss")
    def loss(
        self,
        features: Sequence[jax.Array],
        inputs: Inputs,
        samples: Chosen,
        gt_index: jax.Array,
        *,
        axis_name: str | None = None,
    ) -> dict[str, jax.Array]:
        """Objectness BCE and box regression of the sampled anchors, both over their number in the whole batch.

        `samples` and `gt_index` are those of `sample`; `features` are P2..P6.
        """
        grid = self.grid([feature.shape[1:3] for feature in features])
        logits, deltas = self.at(features, samples.index)

        def one(logits, deltas, boxes, samples, gt_index):
            bce = binary_cross_entropy(logits, samples.positive.astype(jnp.float32))
            targets = box_ops.encode_deltas(grid.boxes(samples.index), boxes[gt_index])
            box = box_regression_sum(deltas, targets, samples.positive, beta=self.settings.smooth_l1_beta)
            return jnp.where(samples.valid, bce, 0).sum(), box

        cls, box = jax.vmap(one)(logits, deltas, inputs.boxes, samples, gt_index)
        count = samples.valid.sum()
        return {
            "rpn_cls": global_mean(cls.sum(), count, axis_name),
            "rpn_box": global_mean(box.sum(), count, axis_name),
        }
