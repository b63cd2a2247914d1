"""What a detector is made of, as frozen dataclasses; the defaults are the reference's LVIS v1.0 Mask R-CNN R50-FPN.

`config.model` of an experiment is exactly `dataclasses.asdict(MaskRCNNSettings(...))`, and
`MaskRCNNSettings.from_dict` is the way back, so each name and default stands here only.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class BackboneSettings:
    """A ResNet of the `pytorch` style (stride in the 3x3 convolution).

    Attributes:
      depth: 50 or 101 (bottleneck blocks), 10 or 18 (basic blocks, for CPU-sized configs).
      width: channels of the stem; stage i has ``width * 2**i`` (times 4 for bottleneck blocks).
      norm: "frozen_bn" (running statistics, trainable affine), "sync_bn" or "group_norm".
      frozen_stages: number of frozen stages besides the stem; 1 freezes stem and stage 1, 0 the stem, -1 nothing.
      remat: compute each block again in the backward pass instead of keeping what it computed: less memory, more time.
    """

    depth: int = 50
    width: int = 64
    norm: str = "frozen_bn"
    frozen_stages: int = 1
    remat: bool = False


@dataclasses.dataclass(frozen=True)
class FPNSettings:
    """Feature pyramid P2..P6 with `channels` each; P6 is P5 subsampled. `norm` "none" or "group_norm"."""

    channels: int = 256
    norm: str = "none"


@dataclasses.dataclass(frozen=True)
class RPNSettings:
    """Region proposal network: anchors, matching, sampling and proposal selection (IoUs and counts per image).

    `resampling_ious` () is plain NMS. Three values are Forest R-CNN's NMS resampling in training: the thresholds of
    proposals near (IoU of at least `resampling_near`) a rare, a common, and a frequent ground truth or none.
    """

    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    min_positive_iou: float = 0.3
    allowed_border: int = -1
    samples: int = 256
    positive_fraction: float = 0.5
    smooth_l1_beta: float = 0.0
    nms_iou: float = 0.7
    pre_nms_train: int = 2000
    post_nms_train: int = 1000
    pre_nms_test: int = 1000
    post_nms_test: int = 1000
    resampling_ious: tuple[float, ...] = ()
    resampling_near: float = 0.3

    def __post_init__(self):
        """Raises ValueError unless there is a threshold for each of the three groups, or none."""
        if len(self.resampling_ious) not in (0, 3):
            raise ValueError(
                f"model.rpn.resampling_ious={self.resampling_ious} must be () or one IoU for rare, common, frequent"
            )


@dataclasses.dataclass(frozen=True)
class BoxHeadSettings:
    """RoI sampling and the Shared2FC box head. `smooth_l1_beta` 0 means L1."""

    fc_channels: int = 1024
    pool_size: int = 7
    finest_scale: int = 56
    class_agnostic: bool = False
    delta_stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    positive_iou: float = 0.5
    match_low_quality: bool = True
    samples: int = 512
    positive_fraction: float = 0.25
    smooth_l1_beta: float = 0.0


@dataclasses.dataclass(frozen=True)
class CascadeSettings:
    """Stages of the second stage, each trained on the boxes that the one before refined; all empty: one stage.

    Attributes:
      positive_ious: IoU from which on a RoI is positive, per stage.
      delta_stds: of the box coder, per stage.
      loss_weights: on all losses of a stage.
    """

    positive_ious: tuple[float, ...] = ()
    delta_stds: tuple[tuple[float, float, float, float], ...] = ()
    loss_weights: tuple[float, ...] = ()


REFERENCE_CASCADE = CascadeSettings(
    positive_ious=(0.5, 0.6, 0.7),
    delta_stds=((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)),
    loss_weights=(1.0, 0.5, 0.25),
)


@dataclasses.dataclass(frozen=True)
class MaskHeadSettings:
    """FCN mask head: `convs` 3x3 convolutions of `channels`, a 2x2 transposed one, one channel per class or for all.

    `predictor` "plain" is a 1x1 convolution; "normed" scores by `temperature` times the cosine between a pixel's
    features and the class's weights, plus a bias (Seesaw, LOCE and GOL are published with it). With `geometric` there
    is one channel for all classes of a parent in the geometric tree (Forest R-CNN).
    """

    class_agnostic: bool = False
    convs: int = 4
    channels: int = 256
    pool_size: int = 14
    predictor: str = "plain"
    temperature: float = 20.0
    geometric: bool = False

    def __post_init__(self):
        """Raises ValueError for an unknown predictor, or channels of no class and of some classes at once."""
        if self.geometric and self.class_agnostic:
            raise ValueError("model.mask_head: class_agnostic and geometric exclude each other")
        if self.predictor not in ("plain", "normed"):
            raise ValueError(f"model.mask_head.predictor must be plain or normed, not {self.predictor!r}")


@dataclasses.dataclass(frozen=True)
class TestSettings:
    """Detections kept per image: score strictly above the threshold, per-class NMS, the best `max_detections`."""

    __test__ = False  # pytest: not a test class

    score_threshold: float = 1e-4
    nms_iou: float = 0.5
    max_detections: int = 300


@dataclasses.dataclass(frozen=True)
class MaskRCNNSettings:
    """Mask R-CNN, or Cascade Mask R-CNN if `cascade` has stages. `num_classes` is K, without background."""

    num_classes: int = 1203
    backbone: BackboneSettings = BackboneSettings()
    fpn: FPNSettings = FPNSettings()
    rpn: RPNSettings = RPNSettings()
    box_head: BoxHeadSettings = BoxHeadSettings()
    mask_head: MaskHeadSettings = MaskHeadSettings()
    cascade: CascadeSettings = CascadeSettings()
    test: TestSettings = TestSettings()

    def __post_init__(self):
        """A cascade needs every value for each stage, and boxes that do not depend on the class.

        Raises:
          ValueError: otherwise.
        """
        lengths = {f.name: len(getattr(self.cascade, f.name)) for f in dataclasses.fields(self.cascade)}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"model.cascade needs as many of each for its stages, but has {counts}")
        if self.cascade.positive_ious and not self.box_head.class_agnostic:
            raise ValueError("model.cascade refines boxes before their class is known: box_head.class_agnostic=True")

    @property
    def box_stages(self) -> tuple[BoxHeadSettings, ...]:
        """Box head settings of each stage; one for Mask R-CNN."""
        stages = zip(self.cascade.positive_ious, self.cascade.delta_stds, strict=True)
        return tuple(
            dataclasses.replace(self.box_head, positive_iou=iou, delta_stds=tuple(stds)) for iou, stds in stages
        ) or (self.box_head,)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MaskRCNNSettings":
        """Inverse of `dataclasses.asdict`; lists become tuples. Raises TypeError on an unknown name."""
        return _from_dict(cls, values)


def cascade_mask_rcnn(**parts: Any) -> MaskRCNNSettings:
    """The reference's Cascade Mask R-CNN: what differs from Mask R-CNN besides the stages. `parts` as usual."""
    defaults = {
        "rpn": RPNSettings(allowed_border=0, smooth_l1_beta=1 / 9, post_nms_train=2000),
        "box_head": BoxHeadSettings(class_agnostic=True, match_low_quality=False, smooth_l1_beta=1.0),
        "cascade": REFERENCE_CASCADE,
    }
    return MaskRCNNSettings(**defaults | parts)


def _from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    converted = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(defaults.get(name)):
            value = _from_dict(type(defaults[name]), value)
        elif isinstance(value, list | tuple):
            value = tuple(tuple(part) if isinstance(part, list) else part for part in value)
        converted[name] = value
    return cls(**converted)
