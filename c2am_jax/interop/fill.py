"""Weights that numpy alone reproduces: the rule behind the recorded outputs of the PyTorch reference.

Each tensor draws from its own generator, seeded by its PyTorch name, so both sides make the same numbers without
exchanging a file.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np

_NORM = re.compile(r"(^|\.)(bn\d|downsample\.1)\.weight$|(^|\.)(bn\d|downsample\.1)\.bias$")
_GAINS = (
    (r"neck\.lateral_convs\.\d+\.conv\.weight$", 0.12),
    (r"rpn_head\.rpn_reg\.weight$", 0.08),
    (r"fc_cls\.weight$", 3.0),
    (r"fc_reg\.weight$", 0.6),
    (r"conv_logits\.weight$", 3.0),
)


def classifier_row_factors(rows: int) -> np.ndarray:
    """What gives the rows of a cosine classifier different norms: (1 + j)^-0.3, and 2 for background, the last."""
    factors = (1.0 + np.arange(rows, dtype=np.float64)) ** -0.3
    factors[-1] = 2.0
    return factors


def fill(
    name: str, shape: Sequence[int], seed: int, *, gains: Sequence[tuple[str, float]] = (), graded: bool = False
) -> np.ndarray:
    """Value of the tensor with PyTorch's `name` and `shape`, float32.

    Args:
      name: as in the PyTorch state dict.
      shape: in PyTorch's layout.
      seed: of the recording.
      gains: (pattern, factor) pairs that replace the usual factors of weights.
      graded: multiply the rows of box classifiers by `classifier_row_factors`.
    """
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if name.endswith("cum_samples"):
        return np.floor(10.0 ** (4.0 * generator.random(shape))).astype(np.float32)
    noise = generator.standard_normal(shape)
    if name.endswith("running_mean"):
        value = 0.1 * noise
    elif name.endswith("running_var"):
        value = 1.0 + 0.1 * np.abs(noise)
    elif _NORM.search(name):
        value = 0.1 * noise if name.endswith("bias") else 1.0 + 0.1 * noise
        value = 0.2 * value if name.endswith("bn3.weight") else value
    elif name.endswith(".bias"):
        value = 0.01 * noise
    else:
        factors = [factor for pattern, factor in (*_GAINS, *gains) if re.search(pattern, name)]
        value = (factors[-1] if factors else 1.0) * noise * np.sqrt(2.0 / float(np.prod(shape[1:])))
    value = value.astype(np.float32)
    if graded and name.endswith("fc_cls.weight"):
        value = (value.astype(np.float64) * classifier_row_factors(shape[0])[:, None]).astype(np.float32)
    return value
