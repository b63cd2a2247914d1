"""A small Mask R-CNN with cosine softmax (Eq. 5) on glyphs, the built-in long-tail set; minutes on two CPU cores.

python train.py --config configs/glyphs_cosine.py
"""

from c2am_jax.config import glyphs


def get_config():
    """No arguments."""
    return glyphs("glyphs_cosine", "cosine")
