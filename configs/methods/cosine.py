"""Cosine softmax: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/cosine.py            LVIS v1.0
python train.py --config configs/methods/cosine.py:v05        LVIS v0.5
python train.py --config configs/methods/cosine.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/cosine.py:glyphs     the built-in data

NormFace (Wang et al., ACM MM 2017), the paper's Eq. 5: s cos(theta) with s 30; C2AM with alpha 0.
Recipe: None of its own; the same experiment as configs/maskrcnn_r50_cosine.py.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("cosine", argument)
