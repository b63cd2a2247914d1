"""C2AM: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/c2am.py            LVIS v1.0
python train.py --config configs/methods/c2am.py:v05        LVIS v0.5
python train.py --config configs/methods/c2am.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/c2am.py:glyphs     the built-in data

Wang et al., CVPR 2022, Eqs. 6-7: competitors of the label move away by an angle made of the weight norms.
Recipe: s 30, alpha 0.5, no margins for background samples (docs/experiments.md says why); the same experiment as
configs/maskrcnn_r50_c2am.py.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("c2am", argument)
