"""Mask R-CNN and Cascade Mask R-CNN as one module: `loss` and `predict`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from c2am_jax.losses.classification import Classification
from c2am_jax.losses.methods import make_classification
from c2am_jax.losses.statistics import ClassStatistics
from c2am_jax.models.architecture import MaskRCNNSettings
from c2am_jax.models.fpn import FPN
from c2am_jax.models.resnet import ResNet
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.models.rpn import RPNHead
from c2am_jax.structures import Detections, Inputs, Proposals


class MaskRCNN(nnx.Module):
    """Backbone, neck, RPN and RoI head under the PyTorch reference's names."""

    def __init__(
        self,
        settings: MaskRCNNSettings,
        classification: Classification,
        *,
        statistics: ClassStatistics | None = None,
        rngs: nnx.Rngs,
    ):
        """Random weights as the reference initialises them; `statistics` are for parts that need them."""
        statistics = statistics or ClassStatistics.uniform(settings.num_classes)
        groups = statistics.frequency_group
        self.backbone = ResNet(settings.backbone, rngs=rngs)
        self.neck = FPN(self.backbone.out_channels, settings.fpn, rngs=rngs)
        self.rpn_head = RPNHead(settings.fpn.channels, settings.rpn, class_groups=groups, rngs=rngs)
        self.roi_head = RoIHead(settings, classification, statistics=statistics, rngs=rngs)
        self.settings = settings

    def features(self, image: jax.Array, *, train: bool = False, axis_name: str | None = None) -> list[jax.Array]:
        """[B, H, W, 3] -> P2..P6, strides 4 to 64."""
        with jax.named_scope("backbone"):
            maps = self.backbone(image, train=train, axis_name=axis_name)
        with jax.named_scope("neck"):
            return self.neck(maps)

    def loss(
        self,
        inputs: Inputs,
        keys: jax.Array | None,
        loss_state: Sequence[Any],
        *,
        axis_name: str | None = None,
        proposals: Proposals | None = None,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], list[Any]]:
        """Training losses of a batch.

        Args:
          inputs: B images of this device.
          keys: one PRNG key per image, [B], for the choice of anchors and RoIs; None takes the first by index.
          loss_state: running state of the classification loss, per stage of the RoI head.
          axis_name: mesh axis over which means are taken, None for one device.
          proposals: what the RoI head trains on instead of the RPN's proposals (parity runs).

        Returns:
          losses "rpn_cls", "rpn_box" and those of the RoI head (scalars, means over all devices), metrics, new state.
        """
        features = self.features(inputs.image, train=True, axis_name=axis_name)
        rpn_keys = roi_keys = None
        if keys is not None:
            rpn_keys, roi_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)
        anchors, gt_index = self.rpn_head.sample(features, inputs, rpn_keys)
        losses = self.rpn_head.loss(features, inputs, anchors, gt_index, axis_name=axis_name)
        if proposals is None:
            output = self.rpn_head(jax.lax.stop_gradient(features))
            proposals = self.rpn_head.propose(output, inputs.image_hw, train=True, inputs=inputs)
        roi_losses, metrics, loss_state = self.roi_head.loss(
            features, proposals, inputs, roi_keys, loss_state, axis_name=axis_name
        )
        return losses | roi_losses, metrics, loss_state

    def predict(self, image: jax.Array, image_hw: jax.Array) -> Detections:
        """Detections of normalised images [B, H, W, 3] whose sizes inside the padding are `image_hw` [B, 2]."""
        features: Sequence[jax.Array] = self.features(image)
        proposals = self.rpn_head.propose(self.rpn_head(features), image_hw, train=False)
        return self.roi_head.detect(features, proposals, image_hw)


def build_model(
    settings: MaskRCNNSettings, loss: Mapping[str, Any], *, statistics: ClassStatistics | None = None, seed: int = 0
) -> MaskRCNN:
    """A detector with random weights; `loss` is `config.loss`: a method's name and its parameters.

    `statistics` of the training set are needed to train with methods that use them; without, all classes count alike.

    Raises:
      ValueError: an unknown method, parameter, norm or depth.
    """
    statistics = statistics or ClassStatistics.uniform(settings.num_classes)
    method = make_classification(statistics=statistics, **loss)
    return MaskRCNN(settings, method, statistics=statistics, rngs=nnx.Rngs(params=seed))
