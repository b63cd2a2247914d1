"""A small Mask R-CNN with softmax cross-entropy on glyphs, the built-in long-tail set; minutes on two CPU cores.

python train.py --config configs/glyphs_ce.py
"""

from c2am_jax.config import glyphs


def get_config():
    """No arguments."""
    return glyphs("glyphs_ce", "softmax")
