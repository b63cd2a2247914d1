"""The public `lvis` package on the same files: its numbers beside ours, and the differences.

Release 0.5.3, the last one, uses a name that numpy dropped in 1.24, and imports OpenCV for drawing. Its modules get
both from here; numpy and OpenCV of this process stay as they are.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from c2am_jax.data.class_names import with_groups
from c2am_jax.data.evaluation_json import public_copy
from c2am_jax.data.lvis import read_json
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.scanned import Scan
from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import IOU_TYPES
from c2am_jax.evaluation.result_classes import ResultClasses
from c2am_jax.evaluation.tables import comparison_table

TOLERANCE = 1e-9  # AP and AR are means of some thousand float64 numbers, added in another order

_LOG = logging.getLogger(__name__)


def official_package() -> types.ModuleType:
    """`lvis.eval`, able to run on today's numpy. Raises UserError if the package is not installed."""
    try:
        with _without_opencv():
            module = importlib.import_module("lvis.eval")
    except ImportError as error:
        raise UserError(f"--official needs the package lvis, pip install lvis: {error}") from None
    old_numpy = types.ModuleType("numpy")
    vars(old_numpy).update(vars(np) | {"float": float})
    vars(module)["np"] = old_numpy
    return module


@contextlib.contextmanager
def _without_opencv() -> Iterator[None]:
    """`import cv2` gives an empty module: the real one does not load on machines without the libraries of a display."""
    before = sys.modules.get("cv2")
    sys.modules["cv2"] = types.ModuleType("cv2")
    try:
        yield
    finally:
        del sys.modules["cv2"]
        if before is not None:
            sys.modules["cv2"] = before


def official_metrics(
    annotations: str | Path, predictions: str | Path, iou_type: str, classes: ResultClasses | None = None
) -> dict[str, float]:
    """What `lvis.LVISEval` says of a results file: the names and units of `LVISAP.metrics`.

    `classes` says what the category ids of the results mean; the package gets them by name, and their groups. What the
    annotations lack is completed as for our numbers, and masks are checked: the package would not come back from some.

    Raises:
      UserError: the package is missing, has no such iou_type, or fails on the files.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"the lvis package scores {' or '.join(IOU_TYPES)}, not {iou_type!r}")
    package = official_package()
    found = scan(annotations)
    if classes is not None:
        groups = with_groups(found.categories, classes.table)
        found = dataclasses.replace(found, categories=groups, additions=["groups of the training set"])
    masks = iou_type == "segm"
    with public_copy(found, masks=masks) as truths, _by_name(found, predictions, classes) as results:
        return _run(package, str(truths), str(results), iou_type)


@contextlib.contextmanager
def _by_name(annotations: Scan, predictions: str | Path, classes: ResultClasses | None) -> Iterator[str | Path]:
    """A results file with the ids of the annotations: the given one, or a copy for the time of the context."""
    if classes is None:
        yield predictions
        return
    renamed, _ = classes.renamed(read_json(predictions), predictions, annotations.categories, annotations.name)
    with tempfile.TemporaryDirectory(prefix="c2am_official_") as folder:
        place = Path(folder) / Path(predictions).name
        place.write_text(json.dumps(renamed))
        yield place


def _run(package: types.ModuleType, annotations: str, predictions: str, iou_type: str) -> dict[str, float]:
    try:
        scored = package.LVISEval(annotations, predictions, iou_type)
        scored.run()
    except Exception as error:  # it checks little, so anything can come out of it
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"the lvis package fails on {predictions} and {annotations}: {reason}") from error
    return {name: float(value) for name, value in scored.results.items()}


def compare(
    annotations: str | Path,
    predictions: str | Path,
    iou_type: str,
    ours: Mapping[str, float],
    classes: ResultClasses | None = None,
) -> tuple[str, bool]:
    """A table of our metrics beside the package's with a line below, and whether all are equal to `TOLERANCE`."""
    _LOG.info("scoring %s with the lvis package, which is several times slower", iou_type)
    theirs = official_metrics(annotations, predictions, iou_type, classes)
    differences = {name: abs(ours[name] - value) for name, value in theirs.items()}
    worst = max(differences, key=lambda name: (math.isnan(differences[name]), differences[name]))
    equal = differences[worst] <= TOLERANCE
    verdict = f"{'equal' if equal else 'NOT equal'} to {TOLERANCE:g}"
    line = f"{iou_type}: ours and lvis are {verdict}; largest difference {differences[worst]:.1e} ({worst})"
    return f"{comparison_table(ours, theirs, differences, iou_type)}\n{line}", equal
