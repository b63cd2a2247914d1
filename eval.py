"""Evaluate a checkpoint, or score a LVIS results file.

python eval.py --config configs/NAME.py [--workdir DIR] [--step N] [--config.calibration.name=norcal]
python eval.py --config configs/NAME.py [--workdir DIR] [--step N] --gather_logits IMAGES
python eval.py --annotations GT.json --predictions DT.json --iou_type bbox|segm|boundary [--output metrics.json]
               [--fixed] [--categories table.csv] [--protocol coco]
"""

import csv
import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from c2am_jax import command_line
from c2am_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/NAME.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; default the newest.", lower_bound=0)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "LVIS json to score against, without any model.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "LVIS results json to score.")
_IOU_TYPE = flags.DEFINE_enum(
    "iou_type", "bbox", ["bbox", "segm", "boundary"], "What overlaps: boxes, masks, contours."
)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write the metrics as json.")
_FIXED = flags.DEFINE_bool(
    "fixed", False, "AP-fixed: the 10,000 best of each category count, without a limit per image."
)
_CATEGORIES = flags.DEFINE_string("categories", None, "Where to write AP of each category as csv.")
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "lvis", ["lvis", "coco"], "Rules of scoring; coco for COCO-layout annotations."
)
_GATHER_LOGITS = flags.DEFINE_integer(
    "gather_logits",
    None,
    "Only write the statistics of the checkpoint's logits over this many training images, for calibration logn.",
    lower_bound=1,
)


def score() -> None:
    """Score a results file."""
    from c2am_jax.evaluation.report import ap_table, threshold_line

    kind = _IOU_TYPE.value
    if _PROTOCOL.value == "coco":
        if _FIXED.value or _CATEGORIES.value:
            raise UserError("--fixed and --categories go with --protocol lvis")
        from c2am_jax.evaluation.coco_ap import evaluate_coco_file

        found = evaluate_coco_file(_ANNOTATIONS.value, _PREDICTIONS.value, kind)
    else:
        from c2am_jax.evaluation.lvis_ap import evaluate_file

        scored = evaluate_file(_ANNOTATIONS.value, _PREDICTIONS.value, kind, fixed=_FIXED.value)
        found = scored.metrics()
        if _CATEGORIES.value:
            rows = scored.category_table()
            with Path(_CATEGORIES.value).open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    metrics = {f"{kind}/{name}": value for name, value in found.items()}
    print(ap_table(metrics))
    if _PROTOCOL.value == "lvis":
        print(threshold_line(scored.thresholds(), kind))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(metrics, indent=2))


def main(_) -> None:
    """Score a file if one is given, else evaluate a checkpoint."""
    if _ANNOTATIONS.value and _PREDICTIONS.value:
        return score()
    if _CONFIG.value is None:
        raise UserError("give --config, or --annotations together with --predictions")
    from c2am_jax.training.calibrated import evaluate_checkpoint, gather_logits

    config = _CONFIG.value
    workdir = _WORKDIR.value or Path("runs") / config.name
    if _GATHER_LOGITS.value:
        print(gather_logits(config, workdir, _STEP.value, _GATHER_LOGITS.value))
        return
    evaluate_checkpoint(config, workdir, _STEP.value)


if __name__ == "__main__":
    command_line.run(main)
