"""The PyTorch head against the JAX loss: values and gradients."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2am_jax.losses import c2am_loss, c2am_margins, cosine_logits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
from c2am_jax.interop import torch_c2am  # noqa: E402  needs torch
from c2am_jax.interop.torch_c2am import C2AMLoss, CosinePredictor  # noqa: E402  needs torch


def problem(classes=12, width=16, samples=20, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(classes, width)) * (1 + np.arange(classes))[:, None] ** -0.7
    return np.abs(rng.normal(size=(samples, width))), weight, rng.integers(0, classes, samples)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 2e-4)])
@pytest.mark.parametrize(
    ("options", "ours"),
    [({}, {}), ({"alpha": 1.0}, {"alpha": 1.0}), ({"background_margin": False}, {"background": "foreground_only"})],
)
def test_loss_and_gradients_equal_those_in_jax(dtype, bound, options, ours):
    x, weight, labels = problem()
    predictor = CosinePredictor(16, 12).to(getattr(torch, dtype))
    with torch.no_grad():
        predictor.weight.copy_(torch.from_numpy(weight))
    features = torch.from_numpy(x.astype(dtype)).requires_grad_()
    loss = C2AMLoss(**options)(predictor(features), predictor.weight, torch.from_numpy(labels))
    loss.sum().backward()

    with jax.enable_x64(dtype == "float64"):

        def total(x, w):
            return c2am_loss(x, w.T, jnp.asarray(labels), **ours).sum()

        args = jnp.asarray(x, dtype), jnp.asarray(weight, dtype)
        value, (dx, dw) = jax.value_and_grad(total, argnums=(0, 1))(*args)
        per_sample = c2am_loss(args[0], args[1].T, jnp.asarray(labels), **ours)
    np.testing.assert_allclose(loss.detach(), per_sample, rtol=bound, atol=bound)
    assert float(loss.detach().sum()) == pytest.approx(float(value), rel=bound)
    scale = np.abs(dw).max()
    np.testing.assert_allclose(features.grad, dx, atol=bound * np.abs(dx).max())
    np.testing.assert_allclose(predictor.weight.grad, dw, atol=bound * scale)


def test_margins_and_logits_equal_those_in_jax():
    x, weight, labels = problem(seed=1)
    predictor = CosinePredictor(16, 12, scale=20.0)
    with torch.no_grad():
        predictor.weight.copy_(torch.from_numpy(weight))
    logits = predictor(torch.from_numpy(x).float())
    expected = cosine_logits(jnp.asarray(x, jnp.float32), jnp.asarray(weight.T, jnp.float32), scale=20.0)
    np.testing.assert_allclose(logits.detach(), expected, atol=1e-4)
    margins = C2AMLoss().margins(predictor.weight, torch.from_numpy(labels))
    np.testing.assert_allclose(
        margins, c2am_margins(jnp.asarray(weight.T, jnp.float32), jnp.asarray(labels)), atol=1e-6
    )
    assert not margins.requires_grad


def test_zero_features_and_dead_classes_have_finite_gradients():
    predictor = CosinePredictor(4, 3)
    with torch.no_grad():
        predictor.weight[1] = 0
    features = torch.zeros(2, 4, requires_grad=True)
    C2AMLoss()(predictor(features), predictor.weight, torch.tensor([0, 1])).sum().backward()
    assert torch.isfinite(features.grad).all() and torch.isfinite(predictor.weight.grad).all()


@pytest.mark.parametrize("options, background", [({}, "foreground_only"), ({"background_margin": True}, "all")])
def test_the_head_of_mmdetection_gets_predictor_and_loss(options, background, monkeypatch):
    """With a stand-in for the parts of MMDetection 3.3 that the head touches."""

    class Shared2FCBBoxHead(torch.nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.num_classes, self.fc_cls = num_classes, torch.nn.Linear(16, num_classes + 1)
            self.init_cfg = [
                {"type": "Normal", "override": {"name": "fc_cls"}},
                {"type": "Normal", "override": {"name": "fc_reg"}},
                {"type": "Xavier", "override": [{"name": "shared_fcs"}, {"name": "cls_fcs"}]},
            ]

        def loss(self, cls_score, bbox_pred, rois, labels, label_weights, *args, **kwargs):
            return {"loss_cls": torch.tensor(-1.0), "loss_bbox": torch.tensor(2.0)}

    registered = {}

    class Registry:
        def register_module(self):
            return lambda cls: registered.setdefault(cls.__name__, cls)

    names = ("mmdet", "mmdet.models", "mmdet.models.roi_heads", "mmdet.models.roi_heads.bbox_heads", "mmdet.registry")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["mmdet.models.roi_heads.bbox_heads"].Shared2FCBBoxHead = Shared2FCBBoxHead
    sys.modules["mmdet.registry"].MODELS = Registry()
    torch_c2am._register()

    head = registered["C2AMBBoxHead"](num_classes=11, c2am={"alpha": 1.0, **options})
    assert [entry["override"] for entry in head.init_cfg] == [
        {"name": "fc_reg"},
        [{"name": "shared_fcs"}, {"name": "cls_fcs"}],
    ]
    x, weight, labels = problem()
    with torch.no_grad():
        head.fc_cls.weight.copy_(torch.from_numpy(weight))
    scores = head.fc_cls(torch.from_numpy(x).float())
    weights = torch.ones(len(labels))
    weights[:5] = 0
    losses = head.loss(scores, None, None, torch.from_numpy(labels), weights)
    assert (labels[5:] == 11).any()  # background, the last class
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(weight.T, jnp.float32), jnp.asarray(labels)
    expected = c2am_loss(*arrays, alpha=1.0, background=background)
    assert float(losses["loss_cls"].detach()) == pytest.approx(float(expected[5:].mean()), rel=1e-4)
    assert float(losses["loss_bbox"]) == 2
