"""The report of a scored results file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2am_jax.environment import made_with
from c2am_jax.evaluation.lvis_ap import LVISAP
from c2am_jax.report.collect import best_threshold, numbers
from c2am_jax.report.gallery import folder_images, make_gallery
from c2am_jax.report.inspection import inspect
from c2am_jax.report.render import render, write
from c2am_jax.wording import counted


def results_report(
    path: Path,
    annotations: str,
    predictions: str,
    iou_type: str,
    scored: LVISAP,
    images: str | None,
    caps: Sequence[int] = (),
) -> None:
    """Write the report of a scored results file; without a folder of `images` it has no gallery."""
    evidence = scored.evidence
    assert evidence is not None
    inspection = inspect(evidence, best_threshold(scored)["threshold"])
    data = numbers({iou_type: scored}, inspection, caps=caps)
    pictures = None
    if images:
        reader = folder_images(annotations, images)
        pictures = make_gallery(evidence, evidence.problem, scored.categories, inspection.candidates, reader)
    categories = counted(len(scored.categories), "category")
    subtitle = f"{counted(len(evidence.image_ids), 'image')} of {Path(annotations).name}, {categories}"
    configuration: dict[str, Any] = {
        "annotations": annotations,
        "predictions": predictions,
        "iou_type": iou_type,
        "limit": f"{scored.limit} detections of an image" if scored.limit else "AP-fixed: 10,000 of a category",
    }
    write(path, render(Path(predictions).name, subtitle, data, pictures, configuration, made_with(devices=False)))
