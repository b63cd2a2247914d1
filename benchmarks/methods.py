"""What the classification loss of each method costs, printed as one JSON line.

    python -m benchmarks.methods [--rois 512] [--features 1024] [--classes 1203] [--step_s 1.25] [--methods eql gol]

Forward and backward of classifier and loss on random features of a head, a quarter of the RoIs foreground, by Zipf's
law; milliseconds and shares of softmax cross-entropy. With the time of a training step (`benchmarks.train_step`) also
what each adds to that step. Methods take turns, so that a machine that slows down slows them all.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.losses import Head, Samples, make_classification
from c2am_jax.losses.methods import METHODS
from c2am_jax.losses.statistics import ClassStatistics


def zipf_statistics(classes: int) -> ClassStatistics:
    """Counts that fall as 1 / rank, from 50,000 instances and 2,000 images of the first class on."""
    rank = np.arange(1, classes + 1)
    return ClassStatistics(np.maximum(50000 // rank, 1) * 1.0, np.maximum(2000 // rank, 1) * 1.0, 100000)


def prepare(name: str, rois: int, width: int, classes: int):
    """The compiled ``(arrays, state) -> (gradients, state)`` of a method and its arguments."""
    counts = zipf_statistics(classes)
    method = make_classification(name, statistics=counts)
    rng = np.random.default_rng(0)
    drawn = rng.choice(classes, rois, p=counts.instance_count / counts.instance_count.sum())
    labels = jnp.asarray(np.where(np.arange(rois) % 4 == 0, drawn, classes), jnp.int32)
    weights = jnp.ones(rois)
    features = jnp.asarray(np.maximum(rng.standard_normal((rois, width)), 0), jnp.float32)
    outputs = classes + 1 + method.extra_outputs
    kernel = jnp.asarray(0.01 * rng.standard_normal((width, outputs)), jnp.float32)
    bias = jnp.full(outputs, method.bias_init) if method.classifier == "linear" else None

    extra = method.extra_parameters(classes, width, lambda: jax.random.key(0))
    trains = {name: value for name, value in extra.items() if jnp.issubdtype(value.dtype, jnp.floating)}

    def mean(arrays, state):
        features, kernel, bias, trains = arrays
        loss, new = method.loss(Samples(features, labels, weights), Head(kernel, bias, extra | trains), state)
        return loss.mean(), new

    step = jax.jit(jax.grad(mean, has_aux=True))
    state, arrays = method.init_state(classes, width), (features, kernel, bias, trains)
    return step, arrays, jax.block_until_ready(step(arrays, state))[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--step_s", type=float, help="seconds of a training step with softmax and as many RoIs")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parser.parse_args()

    names = ["softmax", *(name for name in options.methods if name != "softmax")]
    prepared = {name: prepare(name, options.rois, options.features, options.classes) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, (step, arrays, state) in prepared.items():
            start = time.perf_counter()
            jax.block_until_ready(step(arrays, state))
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    base = median["softmax"]
    line = {
        "benchmark": "methods",
        "rois": options.rois,
        "features": options.features,
        "classes": options.classes,
        "devices": [device.device_kind for device in jax.devices()],
        "ms": {name: round(1e3 * value, 2) for name, value in median.items()},
        "of_softmax": {name: round(value / base, 3) for name, value in median.items()},
    }
    if options.step_s:
        line["of_step_percent"] = {
            name: round(100 * (value - base) / options.step_s, 2) for name, value in median.items()
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
