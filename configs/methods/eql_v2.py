"""Equalization loss v2: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/eql_v2.py            LVIS v1.0
python train.py --config configs/methods/eql_v2.py:v05        LVIS v0.5
python train.py --config configs/methods/eql_v2.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/eql_v2.py:glyphs     the built-in data

Tan et al., CVPR 2021, Eqs. 5-8: K + 1 sigmoids weighted by the ratio of gradients that each class got so far.
Recipe: gamma 12, mu 0.8, alpha 4; totals are summed over devices and never decay. No resampling.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("eql_v2", argument)
