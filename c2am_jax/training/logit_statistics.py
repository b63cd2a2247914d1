"""Mean and standard deviation of each class's logit over RoIs of training images, for LogN.

The RoIs are those that training would sample, ground truths among them, and their logits are what inference reads (the
mean over the stages of a cascade, whose later stages refine the boxes). Only training images are looked at.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.pipeline import train_batches
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.files import as_path
from c2am_jax.losses.calibration import LogitStatistics
from c2am_jax.losses.detection import global_sum
from c2am_jax.mesh import AXIS, ImageProgram, LocalImages, on_devices, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.progress import Counter
from c2am_jax.storage import local_file, worked_on
from c2am_jax.structures import Proposals


def path_of(workdir: str | Path, step: int) -> Path:
    """Where the statistics of a checkpoint are kept."""
    return as_path(workdir) / "logit_statistics" / f"{step}.npz"


def write(found: LogitStatistics, path: Path) -> None:
    """Save."""
    with worked_on(path.parent) as place:
        np.savez(place / path.name, mean=found.mean, std=found.std)


def read(path: Path) -> LogitStatistics:
    """Load. Raises UserError if nobody gathered them; the text says how to."""
    if not path.is_file():
        raise UserError(f"{path}: no statistics of this checkpoint; gather them with eval.py --gather_logits=2000")
    with local_file(path) as local, np.load(local) as arrays:
        return LogitStatistics(arrays["mean"], arrays["std"])


def gather(experiment: Experiment, detector: Detector, mesh: Mesh, *, images: int) -> LogitStatistics:
    """Statistics over the RoIs of at least `images` training images, read as training with this config reads them."""
    schedule = experiment.train
    dataset = open_dataset(experiment.data, "train")
    size = -(-experiment.eval.batch_size // mesh.size) * mesh.size
    sums = _make_sums(mesh, **experiment.data.pixels, seed=schedule.seed)
    detector = jax.device_put(detector, replicated(mesh))
    count, total, square = 0.0, np.zeros(()), np.zeros(())
    batches = train_batches(dataset, experiment.data, batch_size=size, seed=schedule.seed)
    steps = -(-images // size)
    with Counter(steps * size, "gather logits", "image") as bar:
        for number, (bucket, batch) in enumerate(itertools.islice(batches, steps)):
            found = [np.asarray(part, np.float64) for part in sums((detector, number), on_devices(batch, mesh), bucket)]
            count, total, square = (a + b for a, b in zip((count, total, square), found, strict=True))
            bar.update(size)
    mean = total / count
    return LogitStatistics(mean, np.sqrt(np.maximum(square / count - mean**2, 0)))


def _make_sums(mesh: Mesh, *, mean: Sequence[float], std: Sequence[float], seed: int) -> ImageProgram:
    """``((detector, number), batch, bucket) -> (RoIs, sum of their logits [L], sum of squares [L])``."""

    def sums(value: tuple[Detector, Any], images: LocalImages) -> tuple[jax.Array, ...]:
        detector, number = value
        inputs, model = images.inputs, detector.module()
        features = model.features(inputs.image)
        proposals = model.rpn_head.propose(model.rpn_head(features), inputs.image_hw, train=True, inputs=inputs)
        rois = model.roi_head.sample(0, proposals, inputs, images.keys(number))
        chosen = Proposals(rois.boxes, jnp.zeros(rois.valid.shape), rois.valid)
        logits, _, _ = model.roi_head.classify(features, chosen, inputs.image_hw)
        own = jnp.where(rois.valid[..., None], logits, 0)
        parts = rois.valid.sum().astype(jnp.float32), own.sum((0, 1)), (own**2).sum((0, 1))
        return tuple(global_sum(part, AXIS) for part in parts)

    return ImageProgram(sums, mesh, mean=mean, std=std, seed=seed)
