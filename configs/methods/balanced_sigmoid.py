"""BALMS, its balanced sigmoid: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/balanced_sigmoid.py            LVIS v1.0
python train.py --config configs/methods/balanced_sigmoid.py:v05        LVIS v0.5
python train.py --config configs/methods/balanced_sigmoid.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/balanced_sigmoid.py:glyphs     the built-in data

Ren et al., NeurIPS 2020, as its LVIS code has it: foreground RoIs' logits shifted by -ln((1 - f) / f), image
frequencies f.
Recipe: One stage, without the meta re-weighter; the published numbers are of two stages.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"data.sampler": "repeat_factor"}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("balanced_sigmoid", argument, published=PUBLISHED)
