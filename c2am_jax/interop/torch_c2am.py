"""The paper's head for PyTorch: cosine predictor and C2AM loss, to train the reference and compare.

Plain modules, and where MMDetection is installed also a box head for its configs:

    custom_imports = dict(imports=["c2am_jax.interop.torch_c2am"])
    model = dict(roi_head=dict(bbox_head=dict(type="C2AMBBoxHead")))

The formulas and decisions are those of `losses.angles`: background is the last class, norms carry no gradient, no
arccosine, float32 inside. The loss is Eq. 7 to the letter; the head's default gives samples of background no margins,
as the method `c2am` does (``c2am=dict(background_margin=True)`` changes that).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def _floor(x: Tensor) -> float:
    return 1e-24 if x.dtype == torch.float64 else 1e-12


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(_floor(x)))


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class CosinePredictor(nn.Linear):
    """Class weights [C, D] without bias; the output is ``scale * cos(theta_j)``, [N, C]."""

    def __init__(self, in_features: int, out_features: int, scale: float = 30.0):
        """N(0, 0.01) for every class; `scale` is the paper's s."""
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled cosines [N, C] of features [N, D] with the weights of the C classes."""
        return self.scale * _unit(_precise(x)) @ _unit(_precise(self.weight)).T


class C2AMLoss(nn.Module):
    """C2AM (Eqs. 6-7) from the logits ``s cos(theta_j)`` and the predictor's weights."""

    def __init__(
        self, scale: float = 30.0, alpha: float = 0.5, max_margin: float = math.pi / 2, background_margin: bool = True
    ):
        """`background_margin` False: samples of background (the last class) get no margins."""
        super().__init__()
        self.scale, self.alpha, self.max_margin = scale, alpha, max_margin
        self.background_margin = background_margin

    def margins(self, weight: Tensor, labels: Tensor) -> Tensor:
        """m_ij of each sample's label i and each class j in radians, [N, C]; no gradient."""
        weight = _precise(weight.detach())
        log_norms = 0.5 * weight.square().sum(-1).clamp_min(1e-12).log()
        margins = (self.alpha / math.pi * (log_norms[labels][:, None] - log_norms[None])).clamp(0, self.max_margin)
        if not self.background_margin:
            margins = margins.masked_fill((labels == weight.shape[0] - 1)[:, None], 0)
        return margins

    def forward(self, logits: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        """Loss of each sample: logits [N, C], weight [C, D], labels [N] -> [N]."""
        cosines = _precise(logits) / self.scale
        margins = self.margins(weight, labels).to(cosines.dtype)
        floor = 1e-15 if cosines.dtype == torch.float64 else 1e-6
        sines = (1 - cosines.square()).clamp_min(floor).sqrt()
        moved = cosines * margins.cos() - sines * margins.sin()
        return functional.cross_entropy(self.scale * moved, labels, reduction="none")


def _register() -> None:
    """Add `C2AMBBoxHead` to MMDetection's registry, where it is installed."""
    try:
        from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
        from mmdet.registry import MODELS
    except ImportError:
        return

    @MODELS.register_module()
    class C2AMBBoxHead(Shared2FCBBoxHead):
        """MMDetection's box head with the cosine predictor and the C2AM loss; regression is untouched."""

        def __init__(self, *args, c2am: dict | None = None, **kwargs):
            super().__init__(*args, **kwargs)
            self.c2am = C2AMLoss(**{"background_margin": False, **(c2am or {})})
            self.fc_cls = CosinePredictor(self.fc_cls.in_features, self.num_classes + 1, self.c2am.scale)

            def of_classifier(entry):
                return entry.get("override") == {"name": "fc_cls"}

            self.init_cfg = [entry for entry in self.init_cfg or [] if not of_classifier(entry)]

        def loss(self, cls_score, bbox_pred, rois, labels, label_weights, *args, **kwargs):
            losses = super().loss(cls_score, bbox_pred, rois, labels, label_weights, *args, **kwargs)
            per_roi = self.c2am(cls_score, self.fc_cls.weight, labels)
            losses["loss_cls"] = (per_roi * label_weights).sum() / (label_weights > 0).sum().clamp_min(1)
            return losses


_register()
