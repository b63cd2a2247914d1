"""Evaluate a detector on the validation split: results files, LVIS AP, weight norms."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from c2am_jax.data.class_names import match, with_groups
from c2am_jax.data.datasets import open_dataset, source_of
from c2am_jax.data.lvis import CategoryTable
from c2am_jax.data.minival import chosen_images, images_in
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.evaluation.caps import capped, metrics_of
from c2am_jax.evaluation.classifier_norms import classifier_kernels, weight_norm_table
from c2am_jax.evaluation.inference import make_predict, write_predictions
from c2am_jax.evaluation.lvis_ap import IOU_TYPES, LVISAP, evaluate_file
from c2am_jax.evaluation.picture_grid import write_pictures
from c2am_jax.evaluation.result_classes import BESIDE, left_out_line
from c2am_jax.evaluation.results_folder import FILE as SETTINGS_FILE
from c2am_jax.evaluation.results_folder import scored_settings
from c2am_jax.evaluation.tables import ap_table, caps_table, norm_table, threshold_line
from c2am_jax.experiment import Experiment
from c2am_jax.files import as_path
from c2am_jax.mesh import data_mesh
from c2am_jax.models.functional import Detector
from c2am_jax.storage import worked_on
from c2am_jax.wording import counted, noun

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
      folder: of the written files, a local one.
      classes: of the detector: row k is its class k, in `kernels` and `norms` too. Ids in `dataset` may be others.
    """

    dataset: PreparedDataset
    step: int
    scored: dict[str, LVISAP]
    kernels: dict[str, np.ndarray]
    norms: dict[str, dict[str, Any]]
    folder: Path
    classes: CategoryTable


def evaluate(
    experiment: Experiment,
    detector: Detector,
    workdir: str | Path,
    step: int,
    *,
    classes: CategoryTable,
    folder: Path | None = None,
    inspect: Callable[[Evaluated], None] | None = None,
    show: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Predict `eval.split`, score, write ``eval/STEP/`` in the workdir, or `folder`; returns the metrics.

    With several processes all predict, and the first scores; the others get no metrics. Classes go by name: those of
    the detector are `classes`, row k its class k; its detections have the ids that the validation set gives the names.
    Rare, common and frequent are theirs too, those of the training set.

    Writes detections_bbox.json, detections_segm.json, metrics.json, category_ap.json (a row for each category of the
    validation set), thresholds.json (precision and recall of score thresholds), caps.json (AP under `eval.caps`, if any
    are asked for), weight_norms.json (of `classes`, with their ids), settings.json (what was scored how), classes.json
    (what the category ids in the detections mean) and pictures.jpg (a few images, annotations beside detections).
    The first process hands its tables, as texts, to `show`, and everything to `inspect` at the end.

    Raises:
      UserError: the validation set is missing, or has no class of the detector.
    """
    data, split = experiment.data, experiment.eval.split
    dataset = open_dataset(data, split)
    matched = match(classes, dataset.categories, "the detector", str(source_of(data, split)))
    images = chosen_images(dataset.annotations_path, experiment.eval.subset)
    if images is not None:
        dataset = dataset.of_images(images)
    for line in (*dataset.warnings, *_seen_in_coco(experiment, dataset)) if show else ():
        show(line)
    mesh = data_mesh(jax.local_devices())
    share = -(-experiment.eval.batch_size // jax.process_count())
    batch_size = -(-share // mesh.size) * mesh.size
    predict = make_predict(mesh, experiment)
    shared = folder or as_path(workdir) / "eval" / str(step)
    if jax.process_count() > 1:
        detector = jax.tree.map(np.asarray, detector)  # from all devices of the run to those of this process
    with worked_on(shared) as folder:
        left_out = write_predictions(
            predict, detector, dataset, data, mesh, folder, shared=shared, classes=matched, batch_size=batch_size
        )
        if jax.process_index() > 0:
            return {}
        metrics, category_ap, thresholds, caps, results = {}, {}, {}, {}, {}
        for iou_type in IOU_TYPES:
            _LOG.info("scoring %s", iou_type)
            path = folder / f"detections_{iou_type}.json"
            scored = evaluate_file(
                dataset.annotations_path, path, iou_type, evidence=inspect is not None, groups=classes, images=images
            )
            if inspect is not None:
                results[iou_type] = scored
            metrics |= {f"{iou_type}/{name}": value for name, value in scored.metrics().items()}
            category_ap[iou_type] = scored.category_table()
            thresholds[iou_type] = scored.thresholds()
            caps[iou_type] = capped(scored, experiment.eval.caps)
            metrics |= {f"{iou_type}/{name}": value for name, value in metrics_of(caps[iou_type]).items()}
        best = "\n".join(threshold_line(rows, iou_type) for iou_type, rows in thresholds.items())
        kernels = classifier_kernels(detector.arrays)
        norms = {stage: weight_norm_table(np.linalg.norm(kernel, axis=0), classes) for stage, kernel in kernels.items()}
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
        (folder / "category_ap.json").write_text(json.dumps(category_ap, indent=1))
        (folder / "thresholds.json").write_text(json.dumps(thresholds, indent=1))
        if experiment.eval.caps:
            (folder / "caps.json").write_text(json.dumps(caps, indent=1))
        (folder / "weight_norms.json").write_text(json.dumps(norms, indent=1))
        (folder / SETTINGS_FILE).write_text(json.dumps(scored_settings(experiment), indent=1))
        (folder / BESIDE).write_text(json.dumps(with_groups(dataset.categories, classes).as_dicts(), indent=1))
        write_pictures(dataset, folder, thresholds["segm"])
        if show is not None:
            for line in (*matched.lines(), *left_out_line(left_out)):
                show(line)
            images = f"{len(dataset)} {noun(len(dataset), 'image')}"
            show(f"\nstep {step}, {images} of {dataset.name}\n{ap_table(metrics)}\n{best}\n")
            for iou_type, rows in caps.items() if experiment.eval.caps else ():
                show(f"{caps_table(rows, iou_type)}\n")
            for stage, table in norms.items():
                show(norm_table(table, stage))
            show(str(shared))
        if inspect is not None:
            inspect(Evaluated(dataset, step, results, kernels, norms, folder, classes))
        return metrics


def _seen_in_coco(experiment: Experiment, dataset: PreparedDataset) -> list[str]:
    """A warning if the initial weights were trained on images that are evaluated."""
    if not experiment.train.init.startswith("coco:"):
        return []
    seen = images_in(dataset.annotations_path, "train2017") & set(dataset.image_id.tolist())
    if not seen:
        return []
    images, are = counted(len(dataset), "image"), noun(len(seen), "is", "are")
    return [
        f"warning: {len(seen):,} of {images} of {dataset.name} {are} of COCO's train2017, on which the "
        f"initial weights {experiment.train.init} were trained: scores are too high. --subset minival takes the others"
    ]
