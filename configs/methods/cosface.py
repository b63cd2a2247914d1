"""CosFace: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/cosface.py            LVIS v1.0
python train.py --config configs/methods/cosface.py:v05        LVIS v0.5
python train.py --config configs/methods/cosface.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/cosface.py:glyphs     the built-in data

Table 1 of the paper: the label's logit is s (cos(theta) - m).
Recipe: s 30, m 0.35 (0.1 and 0.2 are worth a try).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("cosface", argument)
