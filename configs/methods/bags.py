"""BAGS (balanced group softmax): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/bags.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/bags.py:glyphs --config.train.init=runs/glyphs_ce

Li et al., CVPR 2020, section 4.2 and the authors' code: groups of classes with 1-9, 10-99, 100-999 and more instances,
a softmax with "others" in each, foreground and background as the fifth.
Recipe: a new classifier alone, 12 epochs, rate 0.01, times 0.1 after 8 and 11, gradient clipped at 35, "others" eight
times the positives. The authors' first stage starts from a COCO detector (--config.train.init of stage 1).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "bags",
        data,
        trainable=("*.fc_cls.*",),
        reset=("*.fc_cls.*",),
        epochs=12,
        drops=(8, 11),
        base_lr=0.01,
        grad_clip=35.0,
    )
