"""FASA (feature augmentation and sampling adaptation): Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/fasa.py            LVIS v1.0
python train.py --config configs/methods/fasa.py:v05        LVIS v0.5
python train.py --config configs/methods/fasa.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/fasa.py:glyphs     the built-in data

Zang et al., ICCV 2021, section 3: virtual features drawn from each class's running mean and variance, rare classes more
often; after each epoch classes whose held-out loss fell get more of them. --config.loss.base=c2am puts it on C2AM.
Recipe: 24 epochs, from the second one on 0.1 times the loss of the virtual features, repeat-factor sampling. The
authors' released config measures on the validation set; here 1 % of the training images (5 % of glyphs) is set aside.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"data.sampler": "repeat_factor"}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    config = method("fasa", argument, published=PUBLISHED)
    config.data.held_out = 0.05 if argument.startswith("glyphs") else 0.01
    return config
