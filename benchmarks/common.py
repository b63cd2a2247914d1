"""What the benchmarks share: random batches, the machine and its ceiling, timing, peak memory."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.structures import Batch

GROUND_TRUTHS = 8


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def machine() -> dict[str, Any]:
    """Where a number was taken: device, cores, jax, and how busy the machine was."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def seconds_of(call: Callable[[], Any], repeats: int) -> list[float]:
    """Wall time of each of `repeats` calls, after one that does not count; results are waited for."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


def ceiling(dtype: str = "float32") -> dict[str, float]:
    """Best of this device: GFLOP/s of a large product of matrices, GB/s read and written by a large copy."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    source = jnp.zeros((2**26,), jnp.float32)  # 256 MiB
    copy = jax.jit(lambda x: x + 1)
    return {
        "matmul_gflops": round(2 * side**3 / statistics.median(seconds_of(lambda: product(a, a), 5)) / 1e9, 1),
        "copy_gb_per_s": round(2 * source.nbytes / statistics.median(seconds_of(lambda: copy(source), 5)) / 1e9, 1),
    }


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
