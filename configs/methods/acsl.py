"""Adaptive class suppression loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/acsl.py            LVIS v1.0
python train.py --config configs/methods/acsl.py:v05        LVIS v0.5
python train.py --config configs/methods/acsl.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/acsl.py:glyphs     the built-in data

Wang et al., CVPR 2021: K + 1 sigmoids; foreground RoIs push only classes that score 0.7 or more, background RoIs all
frequent classes, 10 % of them common and 1 % of them rare ones (rules of the authors' acsl.py).
Recipe: one stage here; configs/methods/acsl_second_stage.py is the published one. Every score counts: the threshold is
0.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"model.test.score_threshold": 0.0}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("acsl", argument, published=PUBLISHED)
