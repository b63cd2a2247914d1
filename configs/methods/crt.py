"""cRT (classifier re-training): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/crt.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/crt.py:glyphs --config.train.init=runs/glyphs_ce

Kang et al., ICLR 2020, section 4.1: a new classifier trains on class-balanced data, all else stays.
Recipe: class-aware sampling, 75 000 steps of 16 images, rate 0.02, times 0.1 at 50 000 and 70 000, 500 steps of warm-up
(the detection recipe of EQL v2's authors, LVIS v1.0).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "softmax",
        data,
        name="crt",
        trainable=("*.fc_cls.*",),
        reset=("*.fc_cls.*",),
        sampler="class_aware",
        steps=75_000,
        drops=(50_000, 70_000),
    )
