"""BACL (balanced classification) as published, a second stage: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/bacl_first_stage.py
python train.py --config configs/methods/bacl_second_stage.py --config.train.init=runs/maskrcnn_r50_bacl_first_stage

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_bacl_first_stage_v05 as the first stage's folder. Built-in data:
python train.py --config configs/methods/bacl_first_stage.py:glyphs
python train.py --config configs/methods/bacl_second_stage.py:glyphs --config.train.init=runs/glyphs_bacl_first_stage

Qi et al., IEEE Transactions on Multimedia 2024; the loss is that of configs/methods/bacl.py.
Recipe: classifier, box regression, RPN and mask head from where the first stage left them, 12 epochs, rate 0.02, times
0.1 after 8 and 11, random sampling, normalised mask predictor, 2000 proposals.
Published: Faster R-CNN R50, box AP: LVIS v1.0 26.1, from 19.3; v0.5 27.8, from 22.0. R101: v1.0 27.8, v0.5 29.4.
"""

from c2am_jax.config import second_stage

TRAINABLE = ("*.fc_cls.*", "*.fc_reg.*", "rpn_head.*", "roi_head.mask_head.*")


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "bacl",
        data,
        name="bacl_second_stage",
        published={"model.mask_head.predictor": "normed", "model.rpn.post_nms_train": 2000},
        trainable=TRAINABLE,
        epochs=12,
        drops=(8, 11),
    )
