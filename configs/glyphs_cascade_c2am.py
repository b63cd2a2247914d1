"""A small Cascade Mask R-CNN with C2AM (Eqs. 6-7) on all three heads on glyphs, the built-in long-tail set.

python train.py --config configs/glyphs_cascade_c2am.py
"""

from c2am_jax.config import glyphs


def get_config():
    """No arguments."""
    return glyphs("glyphs_cascade_c2am", "c2am", cascade=True)
