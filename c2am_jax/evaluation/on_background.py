"""Detections on background: those that have nothing to do with any annotated object.

Which classes do they name? A classifier that background does not push away from a class fires there for nothing, and
such detections take places among the few that count.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from c2am_jax.data.lvis import CategoryTable
from c2am_jax.evaluation.lvis_ap import Evidence
from c2am_jax.frequency import GROUPS

NEAR = 0.1  # IoU from which a detection has to do with an object at all (TIDE's bound, Bolya et al., ECCV 2020)


def on_background(evidence: Evidence, categories: CategoryTable, cap: int) -> list[dict[str, Any]]:
    """A row for all classes and for each frequency group: its detections among the best `cap` of each image.

    Detections of classes that are not verified in their image are left out, as they do not count.

    Args:
      evidence: of boxes ("bbox"), by the usual limit of detections.
      categories: whose groups are meant.
      cap: how many of the best detections of each image count.

    Returns:
      Rows of "group", "detections" and "background" (those whose IoU with every annotated object of their image, of
      whatever class, is below `NEAR`), both a mean per image, and "share", the second of the first (None: there are
      no detections).
    """
    problem = evidence.problem
    truths, found = problem.truths, problem.detections
    kept = np.flatnonzero(evidence.counts & (found.rank < cap))
    kept = kept[np.argsort(found.image[kept], kind="stable")]
    by_image = np.argsort(truths.image, kind="stable")
    images = np.arange(len(problem.image_hw) + 1)
    starts = zip(
        np.searchsorted(truths.image[by_image], images), np.searchsorted(found.image[kept], images), strict=True
    )
    nearest, previous = np.zeros(len(kept)), (0, 0)
    for truth, detection in starts:
        own, rows = by_image[previous[0] : truth], kept[previous[1] : detection]
        if len(own) and len(rows):
            ious = np.asarray(coco_mask.iou(found.box[rows], truths.box[own], [0] * len(own)))
            nearest[previous[1] : detection] = ious.max(1)
        previous = truth, detection
    far, label = nearest < NEAR, found.labels()[kept]
    rows = []
    for letter, name in {"": "all", **GROUPS}.items():
        own = np.isin(label, categories.group(letter)) if letter else np.ones(len(label), bool)
        count, background = int(own.sum()), int((own & far).sum())
        share = background / count if count else None
        per_image = {"detections": count / len(problem.image_hw), "background": background / len(problem.image_hw)}
        rows.append({"group": name, **per_image, "share": share})
    return rows
