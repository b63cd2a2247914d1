"""A small Mask R-CNN with C2AM (Eqs. 6-7) on glyphs, the built-in long-tail set; minutes on two CPU cores.

python train.py --config configs/glyphs_c2am.py
"""

from c2am_jax.config import glyphs


def get_config():
    """No arguments."""
    return glyphs("glyphs_c2am", "c2am")
