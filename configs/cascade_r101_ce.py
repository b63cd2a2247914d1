"""Cascade Mask R-CNN R101-FPN with softmax cross-entropy on LVIS v1.0.

python train.py --config configs/cascade_r101_ce.py
LVIS v0.5: --config configs/cascade_r101_ce.py:v05

The paper's row: Table 2. Published numbers: docs/experiments.md.
"""

from c2am_jax.config import lvis


def get_config(version: str = ""):
    """`version`: "" or "v1", or "v05"."""
    return lvis("cascade_r101_ce", "softmax", depth=101, version=version, cascade=True)
