"""C2AM: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/c2am.py            LVIS v1.0
python train.py --config configs/methods/c2am.py:v05        LVIS v0.5
python train.py --config configs/methods/c2am.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/c2am.py:glyphs     the built-in data

Wang et al., CVPR 2022, Eqs. 6-7: competitors of the label move away by an angle made of the weight norms.
Recipe: s 30, alpha 0.5; the same experiment as configs/maskrcnn_r50_c2am.py.
Published: Table 2, LVIS v1.0: mask AP 25.7 (13.0/25.4/31.5), box AP 26.5; Table 6 with repeat factors (:uniform): 27.2
(16.6/27.2/31.9), 27.9; v0.5: 29.7 (19.3/31.3/31.8), 29.8.
"""

from c2am_jax.config import method


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    return method("c2am", argument)
