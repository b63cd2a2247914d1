"""Equalized focal loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/efl.py            LVIS v1.0
python train.py --config configs/methods/efl.py:v05        LVIS v0.5
python train.py --config configs/methods/efl.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/efl.py:glyphs     the built-in data

Li et al., CVPR 2022, Eqs. 4-6: focal loss whose exponent grows from 2 to 10 for classes with little positive gradient.
Recipe: gamma 2, scale 8, alpha 0.25; divided by the number of positive RoIs. Published for one-stage detectors; here it
is the loss of the box head's K sigmoids.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("efl", argument)
