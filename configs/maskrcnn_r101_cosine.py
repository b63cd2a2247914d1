"""Mask R-CNN R101-FPN with cosine softmax (Eq. 5) on LVIS v1.0.

python train.py --config configs/maskrcnn_r101_cosine.py
LVIS v0.5: --config configs/maskrcnn_r101_cosine.py:v05

The paper has no row of this; R50 with it is Table 4, alpha 0.
"""

from c2am_jax.config import lvis


def get_config(version: str = ""):
    """`version`: "" or "v1", or "v05"."""
    return lvis("maskrcnn_r101_cosine", "cosine", depth=101, version=version)
