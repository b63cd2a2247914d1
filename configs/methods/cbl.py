"""Class-balanced loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/cbl.py            LVIS v1.0
python train.py --config configs/methods/cbl.py:v05        LVIS v0.5
python train.py --config configs/methods/cbl.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/cbl.py:glyphs     the built-in data

Cui et al., CVPR 2019, Eq. 9: softmax cross-entropy times the effective-number weight of the label.
Recipe: beta 0.999 (not published for LVIS), background weight 1, divided by the number of RoIs.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("cbl", argument)
