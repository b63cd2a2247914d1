"""Time and memory of RoIAlign's backends on the sizes of a training step; one JSON line each.

    python benchmarks/roi_align.py [--size 512] [--channels 256] [--backends window,matmul] [--repeats 5]

Times forward and backward of 512 RoIs at 7x7 and 128 RoIs at 14x14 together, what one image of Mask R-CNN
asks for. `temporary_mib` is what the compiled program allocates besides arguments and results;
`peak_growth_mib` the growth of the process's peak, compilation included: with several backends in one run
only the first line's is its own.
"""

import argparse
import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.ops.roi_align import assign_levels, batched_roi_align

STRIDES = (4, 8, 16, 32)


def random_boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Boxes [count, 4] inside the image: sides log-uniform from 8 pixels up, aspect ratios to about 4."""
    side = np.exp(rng.uniform(np.log(8), np.log(size), count))
    aspect = np.exp(rng.normal(0, 0.5, count))
    wh = np.minimum(np.stack([side * aspect, side / aspect], -1), size)
    low = rng.uniform(0, 1, (count, 2)) * (size - wh)
    return np.concatenate([low, low + wh], -1).astype(np.float32)


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(backend: str, size: int, channels: int, counts: tuple[int, int], repeats: int) -> dict:
    """One line of the output."""
    rng = np.random.default_rng(0)
    features = [jnp.asarray(rng.standard_normal((1, size // s, size // s, channels)), jnp.float32) for s in STRIDES]
    boxes = [jnp.asarray(random_boxes(rng, count, size))[None] for count in counts]

    def total(features, boxes):
        result = 0.0
        for box, out in zip(boxes, (7, 14), strict=True):
            pooled = batched_roi_align(
                features, box, assign_levels(box), strides=STRIDES, output_size=out, backend=backend
            )
            result += jnp.square(pooled).sum()
        return result

    start, before = time.perf_counter(), peak_mib()
    step = jax.jit(jax.grad(total)).lower(features, boxes).compile()
    compiled = time.perf_counter() - start
    planned = step.memory_analysis()
    jax.block_until_ready(step(features, boxes))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(step(features, boxes))
        times.append(time.perf_counter() - start)
    return {
        "benchmark": "roi_align",
        "backend": backend,
        "device": jax.devices()[0].device_kind,
        "size": size,
        "channels": channels,
        "rois": counts,
        "seconds": round(min(times), 4),
        "seconds_median": round(float(np.median(times)), 4),
        "compile_seconds": round(compiled, 2),
        "temporary_mib": round(planned.temp_size_in_bytes / 2**20) if planned else None,
        "peak_growth_mib": round(peak_mib() - before),
    }


def main() -> None:
    """Read the flags, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the square image")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--rois", type=int, nargs=2, default=(512, 128), help="at 7x7 and at 14x14")
    parser.add_argument("--backends", default="window,matmul")
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    for backend in flags.backends.split(","):
        print(
            json.dumps(measure(backend, flags.size, flags.channels, tuple(flags.rois), flags.repeats)),
            flush=True,
        )


if __name__ == "__main__":
    main()
