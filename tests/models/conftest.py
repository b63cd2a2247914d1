"""A detector small enough to compile in seconds, and a batch for it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.models.architecture import (
    BackboneSettings,
    BoxHeadSettings,
    FPNSettings,
    MaskHeadSettings,
    MaskRCNNSettings,
    RPNSettings,
    TestSettings,
)
from c2am_jax.models.detector import build_model
from c2am_jax.models.functional import Detector
from c2am_jax.structures import Inputs

SIZE = 64
CLASSES = 5


@pytest.fixture(scope="package")
def settings() -> MaskRCNNSettings:
    return MaskRCNNSettings(
        num_classes=CLASSES,
        backbone=BackboneSettings(depth=10, width=8),
        fpn=FPNSettings(channels=16),
        rpn=RPNSettings(
            anchor_scale=4.0,
            samples=32,
            pre_nms_train=40,
            post_nms_train=24,
            pre_nms_test=40,
            post_nms_test=24,
        ),
        box_head=BoxHeadSettings(fc_channels=16, finest_scale=14, samples=16, positive_fraction=0.5),
        mask_head=MaskHeadSettings(convs=1, channels=8),
        test=TestSettings(max_detections=12),
    )


@pytest.fixture(scope="package")
def make_inputs():
    return _make_inputs


def _make_inputs(images: int, *, seed: int = 0) -> Inputs:
    """Random images, each with three boxes on its pixels and one padded row of nonsense."""
    rng = np.random.default_rng(seed)
    boxes = np.array([[4, 4, 30, 34], [20, 22, 62, 60], [30, 2, 50, 20], [9, 9, 40, 40]], np.float32)
    boxes = boxes + rng.integers(-2, 3, (images, 4, 4)).astype(np.float32)
    return Inputs(
        image=jnp.asarray(rng.normal(size=(images, SIZE, SIZE, 3)), jnp.float32),
        image_hw=jnp.full((images, 2), SIZE, jnp.int32),
        boxes=jnp.asarray(boxes),
        labels=jnp.asarray(rng.integers(0, CLASSES, (images, 4)), jnp.int32),
        masks=jnp.asarray(rng.integers(0, 2, (images, 4, 16, 16)), jnp.uint8),
        mask_frames=jnp.asarray(boxes),
        valid=jnp.asarray([[True, True, True, False]] * images),
    )


@dataclasses.dataclass
class Tiny:
    """A detector as functions: `gradients(inputs, keys)` of its losses, with them and the metrics, and `predict`."""

    detector: Detector

    def __post_init__(self):
        def total(params, inputs, keys):
            model = dataclasses.replace(self.detector, params=params).module()
            losses, metrics, _ = model.loss(inputs, keys, model.roi_head.init_loss_state())
            return sum(losses.values()), (losses, metrics)

        self.gradients = functools.partial(jax.jit(jax.grad(total, has_aux=True)), self.detector.params)
        predict = jax.jit(lambda detector, image, hw: detector.module().predict(image, hw))
        self.predict = functools.partial(predict, self.detector)


@pytest.fixture(scope="package")
def tiny(settings) -> Tiny:
    model = build_model(settings, {"name": "c2am"})
    detector = Detector.of(model)
    # Scores and deltas that are large enough to tell boxes apart; residual branches that pass gradients.
    rng = np.random.default_rng(1)
    params = {name: value + 0.5 if name.endswith("bn2.scale") else value for name, value in detector.params.items()}
    for name in ("rpn_head.rpn_cls.kernel", "rpn_head.rpn_reg.kernel", "roi_head.bbox_head.fc_reg.kernel"):
        params[name] = params[name] + 0.05 * rng.normal(size=params[name].shape).astype(np.float32)
    return Tiny(dataclasses.replace(detector, params=params))


@pytest.fixture(scope="module", autouse=True)
def quickly(compile_quickly):
    """Every test here."""
