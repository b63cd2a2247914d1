"""A small Mask R-CNN with C2AM (Eqs. 6-7) on glyphs_lvis, built-in data with LVIS v1.0's classes and counts.

python train.py --config configs/glyphs_lvis_c2am.py
"""

from c2am_jax.config import glyphs_lvis


def get_config():
    """No arguments."""
    return glyphs_lvis("glyphs_lvis_c2am", "c2am")
