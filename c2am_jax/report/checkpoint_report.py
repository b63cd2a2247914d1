"""The report of an evaluated checkpoint."""

from pathlib import Path

import numpy as np

from c2am_jax.data.class_names import match
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.environment import made_with
from c2am_jax.evaluation.caps import usual_caps
from c2am_jax.evaluation.evaluate import Evaluated
from c2am_jax.experiment import Experiment
from c2am_jax.report.collect import best_threshold, numbers
from c2am_jax.report.gallery import ImageReader, make_gallery
from c2am_jax.report.inspection import inspect
from c2am_jax.report.margins import margin_summary
from c2am_jax.report.render import render, write
from c2am_jax.wording import counted


def checkpoint_report(path: Path, experiment: Experiment, evaluated: Evaluated) -> None:
    """Write the report of an evaluated checkpoint."""
    boxes, masks = evaluated.scored["bbox"], evaluated.scored["segm"]
    assert boxes.evidence is not None and masks.evidence is not None
    inspection = inspect(boxes.evidence, best_threshold(boxes)["threshold"])
    loss = experiment.loss.as_dict()
    kernels = {stage: _columns_of(kernel, evaluated) for stage, kernel in evaluated.kernels.items()}
    caps = sorted({*experiment.eval.caps, *usual_caps(len(boxes.results))})  # a curve, whatever training's tables count
    data = numbers(evaluated.scored, inspection, norms=evaluated.norms, kernels=kernels, caps=caps)
    if loss["name"] == "c2am":
        margin = {key: loss[key] for key in ("alpha", "background", "max_margin")}
        groups = evaluated.classes.frequency
        data["margins"] = {
            stage: margin_summary(kernel, groups, **margin) for stage, kernel in evaluated.kernels.items()
        }
    pictures = make_gallery(
        boxes.evidence,
        masks.evidence.problem,
        boxes.categories,
        inspection.candidates,
        lambda wanted: record_images(evaluated.dataset),
    )
    title = f"{experiment.name}, step {evaluated.step:,}"
    categories = counted(len(boxes.categories), "category")
    subtitle = f"{counted(len(evaluated.dataset), 'image')} of {evaluated.dataset.name}, {categories}"
    write(path, render(title, subtitle, data, pictures, experiment.as_dict(), made_with(devices=True)))


def _columns_of(kernel: np.ndarray, evaluated: Evaluated) -> np.ndarray:
    """Columns [D, V] of a kernel for the V categories of the validation set; NaN for those that it does not know."""
    theirs = evaluated.dataset.categories
    column = match(evaluated.classes, theirs, "the detector", str(evaluated.dataset.annotations_path)).column
    return np.where(column < 0, np.nan, kernel[:, column])


def record_images(dataset: PreparedDataset) -> ImageReader:
    """Reader of the images of prepared records."""
    from c2am_jax.data.records import parse_record
    from c2am_jax.data.tensorflow_host import tf

    row_of = {int(image): row for row, image in enumerate(dataset.image_id)}
    decode = tf.function(lambda record: parse_record(record)[0])
    return lambda image_id: decode(tf.constant(dataset.read(row_of[image_id]))).numpy()
