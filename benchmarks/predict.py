"""Time and memory of a prediction, up to RLE masks of the image's size, printed as one JSON line.

    python -m benchmarks.predict --config configs/maskrcnn_r50_ce.py --size 512 512 --batch 1 --steps 5 [--vs torch ...]

Random pixels and random weights, except for the classifier's logits, which on both sides are replaced by draws from
N(0, 2) against a background at 12.5: about 5 % of all (RoI, class) pairs then score above 1e-4, and 300 detections come
out. The peer's time includes its pasting of masks (without RLE).
"""

import jax
import numpy as np

from benchmarks.common import random_batch
from benchmarks.detector import measure, parse
from c2am_jax.config import load_experiment
from c2am_jax.evaluation.encoding import encode_image
from c2am_jax.evaluation.inference import make_predict
from c2am_jax.mesh import batch_sharding, data_mesh, replicated
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.training.state import build_detector

LOGIT_SPREAD, BACKGROUND_LOGIT = 2.0, 12.5


def spread_logits() -> None:
    """Replace the logits of the box stages, without saving their computation."""
    usual = RoIHead.classify

    def classify(self, features, proposals, image_hw):
        logits, boxes, deltas = usual(self, features, proposals, image_hw)
        fixed = LOGIT_SPREAD * jax.random.normal(jax.random.key(0), logits.shape)
        fixed = fixed.at[..., self.settings.num_classes].set(BACKGROUND_LOGIT)
        return fixed + 1e-30 * logits, boxes, deltas

    RoIHead.classify = classify


def main() -> None:
    """The command."""
    options = parse(__doc__, "configs/maskrcnn_r50_ce.py")
    chosen = {"model.num_classes": options.classes, "model.rpn.post_nms_test": options.rois}
    chosen |= {"eval.compute_dtype": "bfloat16" if options.dtype == "bf16" else "float32"}
    experiment = load_experiment(options.config).changed({key: value for key, value in chosen.items() if value})
    mesh = data_mesh()
    spread_logits()
    detector = jax.device_put(build_detector(experiment)[0], replicated(mesh))
    batch = random_batch(options.batch, options.size, max(options.size), experiment.model.num_classes)
    batch = jax.device_put(batch, batch_sharding(mesh))
    predict = make_predict(mesh, experiment)
    hw = np.asarray(options.size)

    def step(compiled):
        found = jax.tree.map(np.asarray, compiled(detector, batch, predict.seed))
        for row in range(options.batch):
            keep = found.valid[row]
            encode_image(
                row,
                found.boxes[row][keep],
                found.scores[row][keep],
                found.labels[row][keep],
                found.masks[row][keep],
                hw,
                hw,
            )
        return {"detections": int(found.valid.sum())}

    measure("predict", options, experiment, predict.lower(detector, batch, options.size), step)


if __name__ == "__main__":
    main()
