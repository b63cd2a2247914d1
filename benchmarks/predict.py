"""Time and memory of a prediction, masks included, printed as one JSON line.

    python -m benchmarks.predict --config configs/cascade_r50_ce.py --size 512 512 --batch 1 --steps 5

Random pixels and random weights: every (RoI, class) pair scores about 1 / 1204, so all are candidates and the largest
number of detections comes out, which is what a prediction costs at its most expensive.
"""

import argparse
import json
import statistics
import time

import jax

from benchmarks.common import peak_rss_gb, random_batch
from c2am_jax.config import load_config
from c2am_jax.evaluation.predict import make_predict
from c2am_jax.training.state import build_functional
from c2am_jax.training.step import batch_sharding, data_mesh, replicated


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/maskrcnn_r50_c2am.py")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()

    config = load_config(options.config)
    hw = (options.size[0], options.size[1])
    mesh = data_mesh()
    functional, params, rest, _ = build_functional(config)
    params, rest = jax.device_put((params, rest), replicated(mesh))
    batch = random_batch(options.batch, hw, max(hw), config.model.num_classes)
    batch = jax.device_put(batch, batch_sharding(mesh))
    predict = make_predict(functional, mesh, mean=config.data.mean, std=config.data.std)

    seconds, found = [], None
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        found = jax.block_until_ready(predict(params, rest, batch, hw))
        seconds.append(time.perf_counter() - start)
    assert found is not None
    first, *timed = seconds
    line = {
        "benchmark": "predict",
        "config": options.config,
        "size": hw,
        "batch": options.batch,
        "devices": [device.device_kind for device in mesh.devices.flat],
        "detections": int(found.valid.sum()),
        "median_s": round(statistics.median(timed), 3),
        "min_s": round(min(timed), 3),
        "compile_s": round(first - statistics.median(timed), 1),
        "peak_rss_gb": peak_rss_gb(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
