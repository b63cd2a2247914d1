"""LWS (learnable weight scaling): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/lws.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/lws.py:glyphs --config.train.init=runs/glyphs_ce

Kang et al., ICLR 2020, section 4.1: z_c = f_c W_c x + b_c; only the K + 1 scales f train, from 1.
Recipe: as configs/methods/crt.py.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "lws",
        data,
        trainable=("*.cls_extra.factor",),
        sampler="class_aware",
        steps=75_000,
        drops=(50_000, 70_000),
    )
