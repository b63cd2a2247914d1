"""Adaptive class suppression loss as published, a second stage: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/acsl_second_stage.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/acsl_second_stage.py:glyphs --config.train.init=runs/glyphs_ce

Wang et al., CVPR 2021; the loss is that of configs/methods/acsl.py, which trains it in one stage.
Recipe (the authors' tunefc configs): the classifier alone, from where softmax left it, 12 epochs, rate 0.02, times 0.1
after 8 and 11, gradient clipped at 35, random sampling. The authors' first stage starts from a COCO detector
(--config.train.init of stage 1). Every score counts: the threshold is 0.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "acsl",
        data,
        name="acsl_second_stage",
        published={"model.test.score_threshold": 0.0},
        trainable=("*.fc_cls.*",),
        epochs=12,
        drops=(8, 11),
        grad_clip=35.0,
    )
