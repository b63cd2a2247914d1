"""Seesaw loss: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/seesaw.py            LVIS v1.0
python train.py --config configs/methods/seesaw.py:v05        LVIS v0.5
python train.py --config configs/methods/seesaw.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/seesaw.py:glyphs     the built-in data

Wang et al., CVPR 2021, Eqs. 5-8: mitigation by cumulative counts, compensation by scores, objectness branch,
normalised classifier.
Recipe: p 0.8, q 2, temperature 20, repeat-factor sampling. With --config.model.mask_head.predictor=normed published at
mask AP 26.8.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"data.sampler": "repeat_factor"}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("seesaw", argument, published=PUBLISHED)
