"""Fixed margin: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/fixed_margin.py            LVIS v1.0
python train.py --config configs/methods/fixed_margin.py:v05        LVIS v0.5
python train.py --config configs/methods/fixed_margin.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/fixed_margin.py:glyphs     the built-in data

Table 5 of the paper: the same margin for every competitor.
Recipe: s 30, m 0.2 (the paper does not say which).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("fixed_margin", argument)
