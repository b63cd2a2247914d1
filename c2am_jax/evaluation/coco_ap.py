"""COCO AP by `pycocotools`, for data in the COCO layout: exhaustively annotated, with crowds."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from c2am_jax.data.class_names import match
from c2am_jax.data.evaluation_json import public_copy
from c2am_jax.data.lvis import read_json
from c2am_jax.errors import UserError
from c2am_jax.evaluation.detection_rows import DetectionRows
from c2am_jax.evaluation.result_classes import ResultClasses, left_out_line
from c2am_jax.evaluation.truths import notes_of, read_truths

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100")


def evaluate_coco_file(
    annotations: str | Path,
    predictions: str | Path,
    iou_type: str,
    *,
    classes: ResultClasses | None = None,
    show: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """COCO's twelve numbers of a results file; -1 where nothing counts.

    Args:
      annotations: json in the COCO layout (a LVIS json is one too, but not exhaustively annotated). What `entries`
        finds unusable is left out; a mask that is none is one without a pixel.
      predictions: COCO results json, the same as LVIS's.
      iou_type: "bbox" or "segm".
      classes: what the category ids of `predictions` mean, which then go by name; without it they are the annotations'.
      show: gets what a user should know about that, line by line.

    Raises:
      UserError: a file is missing or not what it should be; the text names it.
    """
    if iou_type not in ("bbox", "segm"):
        raise UserError(f"iou_type must be bbox or segm for COCO AP, not {iou_type!r}")
    truths = read_truths(annotations)
    matched = classes and match(classes.table, truths.table, classes.name, str(annotations))
    rows = DetectionRows(str(predictions), iou_type, truths, matched)
    rows.read()  # checks each entry: pycocotools does not
    with public_copy(truths.found, masks=iou_type == "segm") as copy:
        dataset = read_json(copy)
    results = read_json(predictions)
    if classes is not None:
        results, _ = classes.renamed(results, predictions, truths.table, annotations)
    notes = [*rows.warnings, *notes_of(truths.found, groups=False, federated=False)]
    for line in (*notes, *(matched.lines() if matched else ()), *left_out_line(rows.left_out)) if show else ():
        show(line)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        for annotation in dataset["annotations"]:
            annotation.setdefault("iscrowd", 0)
        try:
            truth.createIndex()
            scored = COCOeval(truth, truth.loadRes(results) if results else _nothing(dataset), iou_type)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            text = f"{type(error).__name__} {error}"
            raise UserError(f"{predictions}: does not fit {annotations}, or one of them is damaged: {text}") from None
    return dict(zip(NAMES, (float(value) for value in scored.stats), strict=True))


def _nothing(dataset: dict) -> COCO:
    """No detections, which `COCO.loadRes` does not take."""
    found = COCO()
    found.dataset = {key: dataset[key] for key in ("images", "categories")} | {"annotations": []}
    found.createIndex()
    return found
