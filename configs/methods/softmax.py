"""Softmax cross-entropy: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/softmax.py            LVIS v1.0
python train.py --config configs/methods/softmax.py:v05        LVIS v0.5
python train.py --config configs/methods/softmax.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/softmax.py:glyphs     the built-in data

The baseline: K + 1 inner products.
Recipe: None of its own; the same experiment as configs/maskrcnn_r50_ce.py.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("softmax", argument)
