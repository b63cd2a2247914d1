"""Gumbel optimized loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/gol.py            LVIS v1.0
python train.py --config configs/methods/gol.py:v05        LVIS v0.5
python train.py --config configs/methods/gol.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/gol.py:glyphs     the built-in data

Alexandridis et al., ECCV 2022, Eq. 7: K channels of probability exp(-exp(-z)); weights of DropLoss (rules of the
authors' droploss.py): foreground RoIs leave tail classes alone, background RoIs by chance.
Recipe: lambda 1.1e-3 on LVIS v1.0, 1.77e-3 on v0.5; biases start at -2; repeat-factor sampling, normalised mask
predictor, per-class NMS at IoU 0.3.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"data.sampler": "repeat_factor", "model.mask_head.predictor": "normed", "model.test.nms_iou": 0.3}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("gol", argument, published=PUBLISHED)
