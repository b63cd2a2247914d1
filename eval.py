"""Evaluate a checkpoint, or score a LVIS results file.

python eval.py --config configs/NAME.py [--workdir DIR] [--step N]
python eval.py --annotations GT.json --predictions DT.json --iou_type bbox|segm [--output metrics.json]
"""

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
_IOU_TYPE = flags.DEFINE_enum("iou_type", "bbox", ["bbox", "segm"], "What overlaps: boxes or masks.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write the metrics as json.")


def score() -> None:
    """Score a results file."""
    from c2am_jax.evaluation.lvis_ap import evaluate_file
    from c2am_jax.evaluation.report import ap_table

    found = evaluate_file(_ANNOTATIONS.value, _PREDICTIONS.value, _IOU_TYPE.value).metrics()
    metrics = {f"{_IOU_TYPE.value}/{name}": value for name, value in found.items()}
    print(ap_table(metrics))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(metrics, indent=2))


def main(_) -> None:
    """Score a file if one is given, else evaluate a checkpoint."""
    if _ANNOTATIONS.value and _PREDICTIONS.value:
        return score()
    if _CONFIG.value is None:
        raise UserError("give --config, or --annotations together with --predictions")
    from c2am_jax.training.restore import evaluate_checkpoint

    config = _CONFIG.value
    evaluate_checkpoint(config, _WORKDIR.value or Path("runs") / config.name, _STEP.value)


if __name__ == "__main__":
    command_line.run(main)
