"""Effective class-margin loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/ecm.py            LVIS v1.0
python train.py --config configs/methods/ecm.py:v05        LVIS v0.5
python train.py --config configs/methods/ecm.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/ecm.py:glyphs     the built-in data

Cho and Krähenbühl, ECCV 2022: sigmoids with margins and weights from counts.
Recipe: Background counts 6.3313 times all; training doubles the logit, inference does not (as released).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("ecm", argument)
