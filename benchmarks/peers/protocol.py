"""The peer's side of the protocol, and what both peers measure; needs neither JAX nor this project."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def arguments() -> argparse.Namespace:
    """What is measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("train", "predict"), required=True)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--cascade", action="store_true")
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--ground_truths", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--background_logit", type=float, default=12.5, help="see benchmarks.predict")
    parser.add_argument("--logit_spread", type=float, default=2.0)
    return parser.parse_args()


def serve(versions: dict[str, Any], step: Callable[[], dict[str, Any]], peak_gb: Callable[[], float] | None = None):
    """Answer every line on standard input with one step; `step` returns facts of it."""
    facts = step()  # warm
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        facts = step()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gb": round(peak_gb() if peak_gb else own, 2), **facts}), flush=True)


def random_scene(rng: np.random.Generator, size, ground_truths: int, classes: int):
    """An image of noise [H, W, 3] with boxes of 48 to 256 pixels, labels and masks of ellipses [G, H, W]."""
    height, width = size
    side = np.exp(rng.uniform(np.log(48), np.log(256), (ground_truths, 2)))
    side = np.minimum(side, np.array([width, height]) - 8)
    low = rng.uniform(0, 1, side.shape) * (np.array([width, height]) - side)
    boxes = np.concatenate([low, low + side], 1).astype(np.float32)
    y, x = np.mgrid[:height, :width]
    middle, radius = low + side / 2, side / 2
    masks = [((x - m[0]) / r[0]) ** 2 + ((y - m[1]) / r[1]) ** 2 <= 1 for m, r in zip(middle, radius, strict=True)]
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return image, boxes, rng.integers(0, classes, ground_truths), np.array(masks, np.uint8)


def near(rng: np.random.Generator, boxes: np.ndarray, count: int) -> np.ndarray:
    """`count` proposals that overlap ground truths well: their boxes, each side moved by up to 8 % of the size."""
    chosen = boxes[np.arange(count) % len(boxes)]
    size = np.tile(chosen[:, 2:] - chosen[:, :2], 2)
    return np.maximum(chosen + 0.08 * size * rng.uniform(-1, 1, chosen.shape), 0).astype(np.float32)
