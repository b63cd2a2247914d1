"""Is this GPU with this JAX fit to train? Measures scatter-add under contention, and RoIAlign with its gradient.

    python -m benchmarks.gpu_check [--updates 1048576] [--rois 512] [--size 800 1344] [--repeats 9]

One JSON line for each, then a verdict. Exit status 1 where float32 scatter-add is slow: jaxlib 0.10.2 and 0.11.0
compile it to compare-and-swap loops on CUDA (jax issue 38806). On a machine without a GPU it only tests the script.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import machine, seconds_of
from benchmarks.ops import STRIDES, random_boxes
from c2am_jax.environment import devices_line
from c2am_jax.ops.roi_align import assign_levels, batched_roi_align

CHANNELS = 256
# A healthy GPU adds float32 a little slower than int32; compare-and-swap loops are 100 times slower and more.
SLOW = 10.0


def scatter_add(updates: int, repeats: int) -> dict[str, Any]:
    """Adding `updates` numbers into 64 places: medians for float32 and for int32, whose adds are one instruction."""
    where = jnp.asarray(np.random.default_rng(0).integers(0, 64, updates), jnp.int32)
    medians = {}
    for dtype in ("float32", "int32"):
        values = jnp.ones(updates, dtype)
        add = jax.jit(lambda values, where: jnp.zeros(64, values.dtype).at[where].add(values))
        medians[dtype] = statistics.median(seconds_of(lambda add=add, values=values: add(values, where), repeats))
    ratio = medians["float32"] / medians["int32"]
    return {
        "check": "scatter-add",
        "updates": updates,
        "float32_ms": round(medians["float32"] * 1e3, 3),
        "int32_ms": round(medians["int32"] * 1e3, 3),
        "float32_over_int32": round(ratio, 2),
        "slow": ratio > SLOW,
    }


def roi_align(rois: int, size: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """`rois` RoIs at 7x7 on P2 to P5 of an image: medians forward and with the gradient, for each backend."""
    rng = np.random.default_rng(0)
    features = [
        jnp.asarray(rng.standard_normal((1, size[0] // s, size[1] // s, CHANNELS)), jnp.float32) for s in STRIDES
    ]
    boxes = jnp.asarray(random_boxes(rng, rois, min(size)))[None]
    levels, found, gradients = assign_levels(boxes), [], {}
    for backend in ("matmul", "window"):

        def total(features, backend=backend):
            pooled = batched_roi_align(features, boxes, levels, strides=STRIDES, output_size=7, backend=backend)
            return jnp.square(pooled).sum()

        forward, backward = jax.jit(total), jax.jit(jax.grad(total))
        gradients[backend] = backward(features)
        found.append(
            {
                "check": "roi_align",
                "backend": backend,
                "rois": rois,
                "forward_ms": round(statistics.median(seconds_of(lambda f=forward: f(features), repeats)) * 1e3, 2),
                "gradient_ms": round(statistics.median(seconds_of(lambda b=backward: b(features), repeats)) * 1e3, 2),
            }
        )
    scale = max(float(jnp.abs(level).max()) for level in gradients["window"])
    differences = [float(jnp.abs(a - b).max()) for a, b in zip(gradients["matmul"], gradients["window"], strict=True)]
    return [line | {"largest_relative_difference": max(differences) / scale} for line in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 1 where scatter-add is slow."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=1 << 20)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    print(json.dumps({"benchmark": "gpu_check", **machine()}), flush=True)
    scatter = scatter_add(options.updates, options.repeats)
    print(json.dumps(scatter), flush=True)
    for line in roi_align(options.rois, options.size, options.repeats):
        print(json.dumps(line), flush=True)
    verdict = (
        "float32 scatter-add is SLOW here: use jax 0.10.1, or 0.11.1 or later" if scatter["slow"] else "fit to train"
    )
    print(f"{devices_line()}: {verdict}", file=sys.stderr)
    return int(scatter["slow"])


if __name__ == "__main__":
    sys.exit(main())
