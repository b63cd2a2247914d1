"""What a detector is made of, as frozen dataclasses; the defaults are the reference's LVIS v1.0 Mask R-CNN R50-FPN.

`config.model` of an experiment is exactly `MaskRCNNSettings(...).as_dict()`, and `from_dict` is the way back, so each
name, default and check stands here only.
"""

import dataclasses
from typing import Annotated, Any

from c2am_jax.checks import Allowed, Count, Natural, NonNegative, Positive, Settings, Share, one_of, wrong

_FROM_MINUS_1 = Allowed("a whole number of at least -1", lambda value: value >= -1)
_FROZEN = Allowed("a whole number from -1 (nothing is frozen) to 4", lambda stages: -1 <= stages <= 4)
_RATIOS = Allowed("one or more numbers above 0", bool)
PYRAMID_LEVELS = 5  # P2 to P6
_STRIDES = Allowed("ascending strides of the pyramid's levels", lambda strides: sorted(set(strides)) == [*strides])
_RESAMPLING = Allowed("() or three IoUs from 0 to 1: for rare, common, frequent", lambda ious: len(ious) in (0, 3))


@dataclasses.dataclass(frozen=True)
class BackboneSettings(Settings):
    """A ResNet of the `pytorch` style (stride in the 3x3 convolution).

    Attributes:
      depth: 50 or 101 (bottleneck blocks), 10 or 18 (basic blocks, for CPU-sized configs).
      width: channels of the stem; stage i has ``width * 2**i`` (times 4 for bottleneck blocks).
      norm: "frozen_bn" (running statistics, trainable affine), "sync_bn" or "group_norm".
      frozen_stages: number of frozen stages after the stem; 1 freezes stem and stage 1, 0 the stem, -1 nothing.
      remat: compute each block again in the backward pass instead of keeping what it computed: less memory, more time.
    """

    depth: Annotated[int, one_of(10, 18, 50, 101)] = 50
    width: Count = 64
    norm: Annotated[str, one_of("frozen_bn", "sync_bn", "group_norm")] = "frozen_bn"
    frozen_stages: Annotated[int, _FROZEN] = 1
    remat: bool = False


@dataclasses.dataclass(frozen=True)
class FPNSettings(Settings):
    """Feature pyramid P2..P6 with `channels` each; P6 is P5 subsampled. `norm` "none" or "group_norm"."""

    channels: Count = 256
    norm: Annotated[str, one_of("none", "group_norm")] = "none"


@dataclasses.dataclass(frozen=True)
class RPNSettings(Settings):
    """Region proposal network: anchors, matching, sampling and proposal selection (IoUs and counts per image).

    `resampling_ious` () is plain NMS. Three values are Forest R-CNN's NMS resampling in training: the thresholds of
    proposals near (IoU of at least `resampling_near`) a rare, a common, and a frequent ground truth or none.
    """

    anchor_scale: Positive = 8.0
    anchor_ratios: Annotated[tuple[Positive, ...], _RATIOS] = (0.5, 1.0, 2.0)
    strides: Annotated[tuple[Count, ...], _STRIDES] = (4, 8, 16, 32, 64)
    positive_iou: Share = 0.7
    negative_iou: Share = 0.3
    min_positive_iou: Share = 0.3
    allowed_border: Annotated[int, _FROM_MINUS_1] = -1
    samples: Count = 256
    positive_fraction: Share = 0.5
    smooth_l1_beta: NonNegative = 0.0
    nms_iou: Share = 0.7
    pre_nms_train: Count = 2000
    post_nms_train: Count = 1000
    pre_nms_test: Count = 1000
    post_nms_test: Count = 1000
    resampling_ious: Annotated[tuple[Share, ...], _RESAMPLING] = ()
    resampling_near: Share = 0.3

    def relations(self) -> None:
        """No anchor is positive and negative at once."""
        if self.negative_iou > self.positive_iou:
            raise wrong("negative_iou", self.negative_iou, f"at most positive_iou={self.positive_iou}")


@dataclasses.dataclass(frozen=True)
class BoxHeadSettings(Settings):
    """RoI sampling and the Shared2FC box head. `smooth_l1_beta` 0 means L1.

    Box regression has weights for each class, the same for all (`class_agnostic`), or half of each
    (`class_agnostic_branch`: Zhu et al., ECCV 2024).
    """

    fc_channels: Count = 1024
    pool_size: Count = 7
    finest_scale: Count = 56
    class_agnostic: bool = False
    class_agnostic_branch: bool = False
    delta_stds: tuple[Positive, Positive, Positive, Positive] = (0.1, 0.1, 0.2, 0.2)
    positive_iou: Share = 0.5
    match_low_quality: bool = True
    samples: Count = 512
    positive_fraction: Share = 0.25
    smooth_l1_beta: NonNegative = 0.0

    def relations(self) -> None:
        """The branch stands beside weights for each class."""
        if self.class_agnostic_branch and self.class_agnostic:
            raise wrong("class_agnostic_branch", True, "False where class_agnostic=True")


@dataclasses.dataclass(frozen=True)
class CascadeSettings(Settings):
    """Stages of the second stage, each trained on the boxes that the one before refined; all empty: one stage.

    Attributes:
      positive_ious: IoU from which on a RoI is positive, per stage.
      delta_stds: of the box coder, per stage.
      loss_weights: on all losses of a stage.
    """

    positive_ious: tuple[Share, ...] = ()
    delta_stds: tuple[tuple[Positive, Positive, Positive, Positive], ...] = ()
    loss_weights: tuple[NonNegative, ...] = ()

    def relations(self) -> None:
        """Each stage has all three."""
        for name in ("delta_stds", "loss_weights"):
            if len(getattr(self, name)) != len(self.positive_ious):
                raise wrong(name, getattr(self, name), f"one for each stage of positive_ious={self.positive_ious}")


REFERENCE_CASCADE = CascadeSettings(
    positive_ious=(0.5, 0.6, 0.7),
    delta_stds=((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)),
    loss_weights=(1.0, 0.5, 0.25),
)


@dataclasses.dataclass(frozen=True)
class MaskHeadSettings(Settings):
    """FCN mask head: `convs` 3x3 convolutions of `channels`, a 2x2 transposed one, one channel per class or for all.

    `predictor` "plain" is a 1x1 convolution; "normed" scores by `temperature` times the cosine between a pixel's
    features and the class's weights, plus a bias (Seesaw, LOCE and GOL are published with it). With `geometric` there
    is one channel for all classes of a parent in the geometric tree (Forest R-CNN).
    """

    class_agnostic: bool = False
    convs: Natural = 4
    channels: Count = 256
    pool_size: Count = 14
    predictor: Annotated[str, one_of("plain", "normed")] = "plain"
    temperature: Positive = 20.0
    geometric: bool = False

    def relations(self) -> None:
        """Channels are of no class or of some classes, not both."""
        if self.geometric and self.class_agnostic:
            raise wrong("geometric", True, "False where class_agnostic=True")


@dataclasses.dataclass(frozen=True)
class TestSettings(Settings):
    """Detections kept per image: score strictly above the threshold, per-class NMS, the best `max_detections`."""

    __test__ = False  # pytest: not a test class

    score_threshold: Share = 1e-4
    nms_iou: Share = 0.5
    max_detections: Count = 300


@dataclasses.dataclass(frozen=True)
class MaskRCNNSettings(Settings):
    """Mask R-CNN, or Cascade Mask R-CNN if `cascade` has stages. `num_classes` is K, without background."""

    num_classes: Count = 1203
    backbone: BackboneSettings = BackboneSettings()
    fpn: FPNSettings = FPNSettings()
    rpn: RPNSettings = RPNSettings()
    box_head: BoxHeadSettings = BoxHeadSettings()
    mask_head: MaskHeadSettings = MaskHeadSettings()
    cascade: CascadeSettings = CascadeSettings()
    test: TestSettings = TestSettings()

    def relations(self) -> None:
        """A cascade refines boxes before their class is known, and the pyramid has five levels."""
        if len(self.rpn.strides) != PYRAMID_LEVELS:
            raise wrong("rpn.strides", self.rpn.strides, "five strides, of the levels P2 to P6")
        if self.cascade.positive_ious and not self.box_head.class_agnostic:
            raise wrong("box_head.class_agnostic", False, "True where cascade has stages")

    @property
    def box_stages(self) -> tuple[BoxHeadSettings, ...]:
        """Box head settings of each stage; one for Mask R-CNN."""
        stages = zip(self.cascade.positive_ious, self.cascade.delta_stds, strict=True)
        return tuple(dataclasses.replace(self.box_head, positive_iou=iou, delta_stds=stds) for iou, stds in stages) or (
            self.box_head,
        )


def cascade_mask_rcnn(**parts: Any) -> MaskRCNNSettings:
    """The reference's Cascade Mask R-CNN: what differs from Mask R-CNN apart from the stages. `parts` as usual."""
    defaults = {
        "rpn": RPNSettings(allowed_border=0, smooth_l1_beta=1 / 9, post_nms_train=2000),
        "box_head": BoxHeadSettings(class_agnostic=True, match_low_quality=False, smooth_l1_beta=1.0),
        "cascade": REFERENCE_CASCADE,
    }
    return MaskRCNNSettings(**defaults | parts)
