"""Mask R-CNN R101-FPN with C2AM (Eqs. 6-7) on LVIS v1.0.

python train.py --config configs/maskrcnn_r101_c2am.py
LVIS v0.5: --config configs/maskrcnn_r101_c2am.py:v05

The paper's row: Table 2. Published numbers: docs/experiments.md.
"""

from c2am_jax.config import lvis


def get_config(version: str = ""):
    """`version`: "" or "v1", or "v05"."""
    return lvis("maskrcnn_r101_c2am", "c2am", depth=101, version=version)
