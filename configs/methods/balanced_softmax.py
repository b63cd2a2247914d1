"""Balanced softmax: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/balanced_softmax.py            LVIS v1.0
python train.py --config configs/methods/balanced_softmax.py:v05        LVIS v0.5
python train.py --config configs/methods/balanced_softmax.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/balanced_softmax.py:glyphs     the built-in data

Ren et al., NeurIPS 2020, Eq. 3: the logarithm of the counts is added to the logits in training.
Recipe: Background counts as three quarters of all RoIs (our choice; the paper has none).
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("balanced_softmax", argument)
