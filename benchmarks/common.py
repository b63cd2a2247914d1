"""What the benchmarks share: random batches, peak memory."""

import resource

import numpy as np

from c2am_jax.structures import Batch

GROUND_TRUTHS = 8


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def random_batch(images: int, hw: tuple[int, int], canvas: int, classes: int) -> Batch:
    """Noise with boxes of 48 to 256 pixels, not resized."""
    rng = np.random.default_rng(0)
    height, width = hw
    side = np.exp(rng.uniform(np.log(48), np.log(256), (images, GROUND_TRUTHS, 2)))
    side = np.minimum(side, np.array([width, height]) - 8)
    low = rng.uniform(0, 1, side.shape) * (np.array([width, height]) - side)
    return Batch(
        image=rng.integers(0, 256, (images, canvas, canvas, 3)).astype(np.uint8),
        source_hw=np.full((images, 2), hw, np.int32),
        target_hw=np.full((images, 2), hw, np.int32),
        flip=np.zeros(images, bool),
        boxes=np.concatenate([low, low + side], -1).astype(np.float32),
        labels=rng.integers(0, classes, (images, GROUND_TRUTHS)).astype(np.int32),
        masks=rng.integers(0, 256, (images, GROUND_TRUTHS, 112, 14)).astype(np.uint8),
        valid=np.ones((images, GROUND_TRUTHS), bool),
        image_id=np.arange(images),
    )
