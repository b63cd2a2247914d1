"""What the detections of a finished run say beside AP: caps, AP-fixed, AP-pool, detections on background.

Is a gain one within classes or across them? AP-fixed ranks each class by itself; AP-pool and a cap on the detections of
an image compare the scores of different classes (Dave et al., 2021).
"""

import json
from pathlib import Path
from typing import Any

from c2am_jax.data.datasets import open_dataset
from c2am_jax.evaluation.caps import LVIS_SHARE, capped, usual_caps
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.on_background import on_background
from c2am_jax.experiments.runs import PlannedRun
from c2am_jax.files import replace_text
from c2am_jax.training.categories import categories_of_run

FILE = "ranking.json"  # in the folder of the evaluation, so that it is made once


def ranking(run: PlannedRun) -> dict[str, Any] | None:
    """What the page of a table needs of a run's last evaluation; None if the run is not finished.

    Returns:
      "caps": rows of `evaluation.caps.capped` by `usual_caps`, mask AP. "fixed": mask AP-fixed, AP and APr/c/f.
      "pool": mask AP-pool, APpool and APpoolr/c/f. "background": rows of `on_background` at LVIS's share of the
      classes. "cap": that share as a number of detections.
    """
    if run.metrics() is None:
        return None
    folder = run.workdir / "eval" / str(run.last_step())
    if (folder / FILE).is_file():
        return json.loads((folder / FILE).read_text())
    found = _scored(run, folder)
    replace_text(folder / FILE, json.dumps(found, indent=1))
    return found


def _scored(run: PlannedRun, folder: Path) -> dict[str, Any]:
    experiment = run.experiment()
    truths = open_dataset(experiment.data, experiment.eval.split).annotations_path
    classes = categories_of_run(run.workdir, experiment)
    masks, caps = folder / "detections_segm.json", usual_caps(len(classes))
    cap = min(caps, key=lambda count: abs(count / len(classes) - LVIS_SHARE))
    by_image = evaluate_file(truths, masks, "segm", groups=classes)
    by_class = evaluate_file(truths, masks, "segm", groups=classes, fixed=True)
    boxes = evaluate_file(truths, folder / "detections_bbox.json", "bbox", groups=classes, evidence=True)
    if boxes.evidence is None:
        raise AssertionError("evidence was asked for")
    fixed = by_class.metrics()
    return {
        "caps": capped(by_image, caps),
        "fixed": {name: fixed[name] for name in ("AP", "APr", "APc", "APf")},
        "pool": by_class.pooled(),
        "background": on_background(boxes.evidence, boxes.categories, cap),
        "cap": cap,
    }
