"""A small Cascade Mask R-CNN with softmax cross-entropy on glyphs, the built-in long-tail set.

python train.py --config configs/glyphs_cascade_ce.py
"""

from c2am_jax.config import glyphs


def get_config():
    """No arguments."""
    return glyphs("glyphs_cascade_ce", "softmax", cascade=True)
