"""Time and memory of a training step, printed as one JSON line.

    python -m benchmarks.train_step --config configs/maskrcnn_r50_c2am.py --size 512 512 --batch 1 --steps 5
    python -m benchmarks.train_step --config configs/cascade_r50_c2am.py --vs torch --peer_python MMDET_VENV/bin/python

Random pixels, 8 ground truths per image. A random detector proposes almost no positives, so the first proposals are
replaced by jittered ground truths: the RoI stage then works on as many positives as it has room for (the line tells how
many), which is what a step costs at its most expensive. The peer trains on cross-entropy, whatever the config's loss.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import GROUND_TRUTHS, random_batch
from benchmarks.detector import measure, parse
from c2am_jax.config import load_experiment
from c2am_jax.mesh import batch_sharding, data_mesh
from c2am_jax.models.rpn import RPNHead
from c2am_jax.structures import Proposals
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.restore import first_state
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.step import configured_step


def propose_jittered(boxes: np.ndarray, copies: int) -> None:
    """The RPN returns `copies` boxes near each ground truth [B, G, 4] first from now on, then its usual ones."""
    usual = RPNHead.propose
    rng = np.random.default_rng(1)
    sides = np.tile(boxes[..., 2:] - boxes[..., :2], 2)[:, :, None]
    near = boxes[:, :, None] + 0.08 * sides * rng.uniform(-1, 1, (*boxes.shape[:2], copies, 4))
    near = jnp.asarray(near.reshape(boxes.shape[0], -1, 4), jnp.float32)

    def propose(self, output, image_hw, **settings):
        found = usual(self, output, image_hw, **settings)
        limit = jnp.tile(image_hw[:, None, ::-1], 2)
        first = jnp.clip(near, 0, limit)
        count = first.shape[1]
        return Proposals(found.boxes.at[:, :count].set(first), found.scores, found.valid.at[:, :count].set(True))

    RPNHead.propose = propose


def main() -> None:
    """The command."""
    options = parse(__doc__, "configs/maskrcnn_r50_c2am.py")
    chosen = {"model.num_classes": options.classes, "model.box_head.samples": options.rois}
    chosen |= {"train.batch_size": options.batch}
    chosen |= {"train.compute_dtype": "bfloat16" if options.dtype == "bf16" else "float32"}
    experiment = load_experiment(options.config).changed({key: value for key, value in chosen.items() if value})

    mesh = data_mesh()
    batch = random_batch(options.batch, options.size, max(options.size), experiment.model.num_classes)
    propose_jittered(batch.boxes, copies=min(40, experiment.model.rpn.post_nms_train // GROUND_TRUTHS))
    state = first_state(experiment, mesh)
    optimizer = make_optimizer(experiment.train, Schedule(experiment.train, 1000).rate)
    train_step = configured_step(experiment, optimizer, mesh)
    batch = jax.device_put(batch, batch_sharding(mesh))

    def step(compiled):
        nonlocal state
        state, metrics = jax.block_until_ready(compiled(state, batch, train_step.seed))
        positive = [int(v) for name, v in sorted(metrics.items()) if name.endswith("roi/positive")]
        return {"positive_rois": positive, "loss": round(float(metrics["loss"]), 4)}

    measure("train_step", options, experiment, train_step.lower(state, batch, options.size), step)


if __name__ == "__main__":
    main()
