"""BACL (balanced classification) in one stage: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/bacl.py            LVIS v1.0
python train.py --config configs/methods/bacl.py:v05        LVIS v0.5
python train.py --config configs/methods/bacl.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/bacl.py:glyphs     the built-in data

Qi et al., IEEE Transactions on Multimedia 2024 (arXiv 2308.02213): K + 1 sigmoids with margins between pairs of
foreground classes, from how often each is taken for the other so far, and hallucinated features of classes that are
recognised badly. The authors train it as a second stage: configs/methods/bacl_second_stage.py.
Recipe: alpha 0.85, threshold 0.7, 8 classes of 12 features for each two images; 12 epochs.
Published: in two stages only.
"""

from c2am_jax.config import method

PUBLISHED = {"train.epochs": 12, "train.lr_drops": (8 / 12, 11 / 12)}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("bacl", argument, published=PUBLISHED)
