"""SphereFace: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/sphereface.py            LVIS v1.0
python train.py --config configs/methods/sphereface.py:v05        LVIS v0.5
python train.py --config configs/methods/sphereface.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/sphereface.py:glyphs     the built-in data

Table 1 of the paper: |x| psi(theta), annealed.
Recipe: m 4, lambda from 1000 down to 5.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("sphereface", argument)
