"""LDAM: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/ldam.py            LVIS v1.0
python train.py --config configs/methods/ldam.py:v05        LVIS v0.5
python train.py --config configs/methods/ldam.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/ldam.py:glyphs     the built-in data

Cao et al., NeurIPS 2019, Eqs. 12-13: the label's cosine minus a margin proportional to n^(-1/4).
Recipe: Largest margin 0.5, scale 30; deferred re-weighting with --config.loss.reweight_from=STEP (the first drop of
the learning rate).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("ldam", argument)
