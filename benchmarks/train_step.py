"""Time and memory of a training step, printed as one JSON line.

    python -m benchmarks.train_step --config configs/maskrcnn_r50_c2am.py --size 512 512 --batch 1 --steps 5

Random pixels, 8 ground truths per image. A random detector proposes almost no positives, so the first proposals are
replaced by jittered ground truths: the RoI stage then works on as many positives as it has room for (the line tells how
many), which is what a step costs at its most expensive.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import peak_rss_gb, random_batch
from c2am_jax.config import load_config
from c2am_jax.models.rpn import RPNHead
from c2am_jax.structures import Proposals
from c2am_jax.training.optimizer import learning_rate, make_optimizer
from c2am_jax.training.state import build_functional, init_state
from c2am_jax.training.step import batch_sharding, data_mesh, make_train_step, replicated


def propose_jittered(boxes: np.ndarray, copies: int) -> None:
    """Make the RPN return `copies` boxes near each ground truth [B, G, 4] first, besides its usual work."""
    usual = RPNHead.propose
    rng = np.random.default_rng(1)
    sides = np.tile(boxes[..., 2:] - boxes[..., :2], 2)[:, :, None]
    near = boxes[:, :, None] + 0.08 * sides * rng.uniform(-1, 1, (*boxes.shape[:2], copies, 4))
    near = jnp.asarray(near.reshape(boxes.shape[0], -1, 4), jnp.float32)

    def propose(self, output, image_hw, *, train):
        found = usual(self, output, image_hw, train=train)
        limit = jnp.tile(image_hw[:, None, ::-1], 2)
        first = jnp.clip(near, 0, limit)
        count = first.shape[1]
        return Proposals(found.boxes.at[:, :count].set(first), found.scores, found.valid.at[:, :count].set(True))

    RPNHead.propose = propose


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/maskrcnn_r50_c2am.py")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()

    config = load_config(options.config)
    config.train.batch_size = options.batch
    hw = (options.size[0], options.size[1])

    mesh = data_mesh()
    batch = random_batch(options.batch, hw, max(hw), config.model.num_classes)
    propose_jittered(batch.boxes, copies=40)
    functional, params, rest, loss_state = build_functional(config)
    optimizer = make_optimizer(config.train, learning_rate(config.train, 1000))
    step = make_train_step(functional, optimizer, mesh, mean=config.data.mean, std=config.data.std, seed=0)
    state = jax.device_put(init_state(params, rest, loss_state, optimizer), replicated(mesh))
    del params, rest
    batch = jax.device_put(batch, batch_sharding(mesh))

    seconds, cpu_seconds = [], []
    metrics = {}
    for _ in range(options.steps + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        state, metrics = jax.block_until_ready(step(state, batch, hw))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    first, *timed = seconds
    line = {
        "benchmark": "train_step",
        "config": options.config,
        "size": hw,
        "batch": options.batch,
        "devices": [device.device_kind for device in mesh.devices.flat],
        "positive_rois": [int(v) for name, v in sorted(metrics.items()) if name.endswith("roi/positive")],
        "median_s": round(statistics.median(timed), 3),
        "min_s": round(min(timed), 3),
        "cpu_s": round(min(cpu_seconds[1:]), 3),
        "compile_s": round(first - statistics.median(timed), 1),
        "peak_rss_gb": peak_rss_gb(),
        "loss": round(float(metrics["loss"]), 4),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
