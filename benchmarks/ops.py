"""Time of each operation of a step by itself, forward and with its gradient; one JSON line each.

    python -m benchmarks.ops [--only roi_align,loss] [--size 512] [--classes 1203] [--repeats 9]

Losses are measured in turns with one another, so that their ratios mean something on a noisy machine: `over_cosine` and
`over_softmax` are medians of ratios of neighbouring runs. The losses' own time includes the classifier's products.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import ceiling, machine, seconds_of
from c2am_jax.evaluation.encoding import encode_image
from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.ops.anchors import pyramid_anchors
from c2am_jax.ops.masks import mask_targets
from c2am_jax.ops.matching import MatchRule, match_boxes
from c2am_jax.ops.nms import multiclass_nms, nms
from c2am_jax.ops.roi_align import assign_levels, batched_roi_align

STRIDES = (4, 8, 16, 32)
Line = dict[str, Any]


def random_boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Boxes [count, 4] inside the image: sides log-uniform from 8 pixels up, aspect ratios to about 4."""
    side = np.exp(rng.uniform(np.log(8), np.log(size), count))
    aspect = np.exp(rng.normal(0, 0.5, count))
    wh = np.minimum(np.stack([side * aspect, side / aspect], -1), size)
    low = rng.uniform(0, 1, (count, 2)) * (size - wh)
    return np.concatenate([low, low + wh], -1).astype(np.float32)


def timed(function: Callable[..., Any], *arguments: Any, repeats: int) -> Line:
    """Median time and temporaries of a jitted function."""
    compiled = jax.jit(function).lower(*arguments).compile()
    times = seconds_of(lambda: compiled(*arguments), repeats)
    memory = compiled.memory_analysis()
    return {
        "median_ms": round(statistics.median(times) * 1e3, 2),
        "min_ms": round(min(times) * 1e3, 2),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20) if memory else None,
    }


def roi_align(options: argparse.Namespace) -> Iterator[Line]:
    """512 RoIs at 7x7 and 128 at 14x14, what one training image asks for; both backends."""
    rng = np.random.default_rng(0)
    maps = [(options.size // s, options.size // s) for s in STRIDES]
    features = [jnp.asarray(rng.standard_normal((1, *hw, 256)), jnp.float32) for hw in maps]
    boxes = [jnp.asarray(random_boxes(rng, count, options.size))[None] for count in (512, 128)]
    for backend in ("window", "matmul"):

        def total(features, boxes, backend=backend):
            parts = [
                batched_roi_align(features, b, assign_levels(b), strides=STRIDES, output_size=out, backend=backend)
                for b, out in zip(boxes, (7, 14), strict=True)
            ]
            return sum(jnp.square(part).sum() for part in parts)

        yield {"op": "roi_align", "backend": backend} | timed(total, features, boxes, repeats=options.repeats)
        gradient = timed(jax.grad(total), features, boxes, repeats=options.repeats)
        yield {"op": "roi_align forward and backward", "backend": backend} | gradient


def suppression(options: argparse.Namespace) -> Iterator[Line]:
    """NMS of one level's proposals, and of all classes' candidates."""
    rng = np.random.default_rng(0)
    boxes, scores = jnp.asarray(random_boxes(rng, 1000, options.size)), jnp.asarray(rng.random(1000), jnp.float32)

    def one(boxes, scores):
        return nms(boxes, scores, scores > 0, iou_threshold=0.7, max_output=1000)

    yield {"op": "nms", "boxes": 1000} | timed(one, boxes, scores, repeats=options.repeats)
    logits = jnp.asarray(rng.normal(0, 2, (1000, options.classes + 1)), jnp.float32).at[:, -1].set(12.5)

    def all_classes(logits, boxes):
        return multiclass_nms(
            jax.nn.softmax(logits)[:, :-1],
            lambda roi, label: boxes[roi],
            jnp.ones(1000, bool),
            score_threshold=1e-4,
            iou_threshold=0.5,
            max_output=300,
        )

    line = {"op": "multiclass_nms", "boxes": 1000, "classes": options.classes}
    yield line | timed(all_classes, logits, boxes, repeats=options.repeats)


def matching(options: argparse.Namespace) -> Iterator[Line]:
    """IoU and matching of all anchors of a square image with 300 padded ground truths."""
    rng = np.random.default_rng(0)
    strides = (*STRIDES, 64)
    anchors = pyramid_anchors((options.size,) * 2, strides, 8, (0.5, 1.0, 2.0))
    anchors = jnp.asarray(np.concatenate(anchors))
    boxes = jnp.asarray(random_boxes(rng, 300, options.size))

    def all_anchors(boxes, valid):
        rule = MatchRule(positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3, match_low_quality=True)
        return match_boxes(boxes, valid, anchors, jnp.ones(len(anchors), bool), rule)

    line = {"op": "match anchors", "ground_truths": 300, "anchors": len(anchors)}
    yield line | timed(all_anchors, boxes, jnp.arange(300) < 12, repeats=options.repeats)


def masks(options: argparse.Namespace) -> Iterator[Line]:
    """Targets of 128 RoIs on the device; pasting and encoding of 300 detections on the host."""
    rng = np.random.default_rng(0)
    frames = jnp.asarray(random_boxes(rng, 20, options.size))
    stored = jnp.asarray(rng.integers(0, 2, (20, 112, 112)), jnp.uint8)
    index = jnp.asarray(rng.integers(0, 20, 128))
    yield {"op": "mask_targets", "rois": 128} | timed(
        mask_targets, stored, frames, index, frames[index], repeats=options.repeats
    )
    boxes, hw = random_boxes(rng, 300, options.size), np.array([options.size] * 2)
    probabilities = rng.random((300, 28, 28)).astype(np.float32)

    def paste():
        return encode_image(1, boxes, np.ones(300), np.ones(300, int), probabilities, hw, hw)

    times = seconds_of(paste, options.repeats)
    yield {"op": "paste and RLE", "detections": 300, "median_ms": round(statistics.median(times) * 1e3, 1)}


def loss(options: argparse.Namespace) -> Iterator[Line]:
    """Softmax cross-entropy, cosine softmax and C2AM with their gradients, N samples of 1024 features."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(0, 0.01, (1024, options.classes + 1)), jnp.float32)
    for samples in (512, 1024, 2048, 4096, 8192):
        features = jnp.asarray(np.abs(rng.standard_normal((samples, 1024))), jnp.float32)
        labels = jnp.asarray(rng.integers(0, options.classes + 1, samples))
        programs = {name: _loss_program(name, features, kernel, labels) for name in ("softmax", "cosine", "c2am")}
        times = {name: [] for name in programs}
        for turn in range(options.repeats + 1):
            for name, program in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(program())
                if turn:
                    times[name].append(time.perf_counter() - start)
        for name, own in times.items():

            def over(other, own=own, times=times):
                return round(statistics.median(a / b for a, b in zip(own, times[other], strict=True)), 3)

            yield {
                "op": f"{name} loss forward and backward",
                "samples": samples,
                "classes": options.classes,
                "median_ms": round(statistics.median(own) * 1e3, 2),
                "over_softmax": over("softmax"),
                "over_cosine": over("cosine"),
            }


def _loss_program(name: str, features: jax.Array, kernel: jax.Array, labels: jax.Array) -> Callable[[], Any]:
    method = make_classification(name)
    bias = jnp.zeros(kernel.shape[1]) if method.classifier == "linear" else None

    def mean(features, kernel):
        return method.loss(Samples(features, labels, jnp.ones(len(labels))), Head(kernel, bias), {})[0].mean()

    compiled = jax.jit(jax.value_and_grad(mean, argnums=(0, 1))).lower(features, kernel).compile()
    return lambda: compiled(features, kernel)


OPS = {"roi_align": roi_align, "nms": suppression, "matching": matching, "masks": masks, "loss": loss}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(OPS), help=f"of {', '.join(OPS)}")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(json.dumps({"benchmark": "ops", **machine(), **ceiling()}), flush=True)
    for name in options.only.split(","):
        for line in OPS[name](options):
            print(json.dumps({"benchmark": "ops", **line}), flush=True)


if __name__ == "__main__":
    main()
