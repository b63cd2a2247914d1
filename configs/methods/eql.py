"""Equalization loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/eql.py            LVIS v1.0
python train.py --config configs/methods/eql.py:v05        LVIS v0.5
python train.py --config configs/methods/eql.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/eql.py:glyphs     the built-in data

Tan et al., CVPR 2020, Eq. 3: K sigmoids; foreground RoIs do not push tail classes down.
Recipe: lambda 1.1e-3 on LVIS v1.0, 1.77e-3 on v0.5; published with 1x schedules.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"train.epochs": 12, "train.lr_drops": (8 / 12, 11 / 12)}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("eql", argument, published=PUBLISHED)
