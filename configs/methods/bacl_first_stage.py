"""BACL's first stage, plain binary cross-entropy of K + 1 sigmoids: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/bacl_first_stage.py            LVIS v1.0
python train.py --config configs/methods/bacl_first_stage.py:v05        LVIS v0.5
python train.py --config configs/methods/bacl_first_stage.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/bacl_first_stage.py:glyphs     the built-in data

Qi et al., IEEE Transactions on Multimedia 2024: what configs/methods/bacl_second_stage.py goes on from.
Recipe: 12 epochs, rate times 0.1 after 8 and 11, weight decay 5e-5, normalised mask predictor, 2000 proposals,
copy-paste. The authors crop 1280 x 1280 pixels of images scaled by 0.8 to 1.25; here images have their usual sizes.
Published: nothing of this stage alone.
"""

from c2am_jax.config import method

PUBLISHED = {
    "train.epochs": 12,
    "train.lr_drops": (8 / 12, 11 / 12),
    "train.weight_decay": 5e-5,
    "model.mask_head.predictor": "normed",
    "model.rpn.post_nms_train": 2000,
    "data.copy_paste": 1.0,
}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    config = method("bacl", argument, name="bacl_first_stage", published=PUBLISHED)
    config.loss.alpha, config.loss.threshold, config.loss.drawn_classes = 0.0, 0.0, 0
    return config
