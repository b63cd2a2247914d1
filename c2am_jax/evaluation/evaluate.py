"""Evaluate a detector on the validation split: results files, LVIS AP, weight norms."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.errors import UserError
from c2am_jax.evaluation.classifier_norms import classifier_kernels, weight_norm_table
from c2am_jax.evaluation.inference import make_predict, write_predictions
from c2am_jax.evaluation.lvis_ap import IOU_TYPES, LVISAP, evaluate_file
from c2am_jax.evaluation.pictures import write_pictures
from c2am_jax.evaluation.tables import ap_table, norm_table, threshold_line
from c2am_jax.experiment import Experiment
from c2am_jax.mesh import data_mesh
from c2am_jax.models.functional import Detector

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation, for who wants to see more of it than the metrics.

    Attributes:
      dataset: what was predicted.
      step: of the checkpoint.
      scored: by IoU type, with evidence; the detections of both stand in the same order.
      kernels: of the classifier, [D, C] by stage.
      norms: tables of `weight_norm_table` by stage.
      folder: of the written files.
    """

    dataset: PreparedDataset
    step: int
    scored: dict[str, LVISAP]
    kernels: dict[str, np.ndarray]
    norms: dict[str, dict[str, Any]]
    folder: Path


def evaluate(
    experiment: Experiment,
    detector: Detector,
    workdir: str | Path,
    step: int,
    *,
    suffix: str = "",
    inspect: Callable[[Evaluated], None] | None = None,
    show: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Predict, score, write ``eval/STEP<suffix>/`` in the workdir; returns the metrics.

    With several processes all predict, and the first scores; the others get no metrics.

    Writes detections_bbox.json, detections_segm.json, metrics.json, category_ap.json (a row for each
    category), thresholds.json (precision and recall of score thresholds), weight_norms.json, and pictures.jpg (a few
    images, annotations beside detections).
    The first process hands its tables, as texts, to `show`, and everything to `inspect` at the end.
    """
    dataset = open_dataset(experiment.data, "val")
    if len(dataset.categories) != experiment.model.num_classes:
        raise UserError(
            f"{dataset.annotations_path} has {len(dataset.categories)} categories, the detector "
            f"{experiment.model.num_classes}"
        )
    mesh = data_mesh(jax.local_devices())
    share = -(-experiment.eval.batch_size // jax.process_count())
    batch_size = -(-share // mesh.size) * mesh.size
    predict = make_predict(mesh, **experiment.data.pixels)
    folder = Path(workdir) / "eval" / f"{step}{suffix}"
    if jax.process_count() > 1:
        detector = jax.tree.map(np.asarray, detector)  # from all devices of the run to those of this process
    write_predictions(predict, detector, dataset, experiment.data, mesh, folder, batch_size=batch_size)
    if jax.process_index() > 0:
        return {}

    metrics, category_ap, thresholds, results = {}, {}, {}, {}
    for iou_type in IOU_TYPES:
        _LOG.info("scoring %s", iou_type)
        path = folder / f"detections_{iou_type}.json"
        scored = evaluate_file(dataset.annotations_path, path, iou_type, evidence=inspect is not None)
        if inspect is not None:
            results[iou_type] = scored
        metrics |= {f"{iou_type}/{name}": value for name, value in scored.metrics().items()}
        category_ap[iou_type] = scored.category_table()
        thresholds[iou_type] = scored.thresholds()
    best = "\n".join(threshold_line(rows, iou_type) for iou_type, rows in thresholds.items())
    kernels = classifier_kernels(detector.arrays)
    norms = {
        stage: weight_norm_table(np.linalg.norm(kernel, axis=0), dataset.categories)
        for stage, kernel in kernels.items()
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    (folder / "category_ap.json").write_text(json.dumps(category_ap, indent=1))
    (folder / "thresholds.json").write_text(json.dumps(thresholds, indent=1))
    (folder / "weight_norms.json").write_text(json.dumps(norms, indent=1))
    write_pictures(dataset, folder, thresholds["segm"])
    if show is not None:
        show(f"\nstep {step}, {len(dataset)} images of {dataset.name}\n{ap_table(metrics)}\n{best}\n")
        for stage, table in norms.items():
            show(norm_table(table, stage))
        show(str(folder))
    if inspect is not None:
        inspect(Evaluated(dataset, step, results, kernels, norms, folder))
    return metrics
