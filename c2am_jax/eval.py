"""Evaluate a checkpoint, or score a LVIS results file.

c2am-eval --workdir DIR [--step N|best] [--config.calibration.name=norcal] [--config.KEY=VALUE ...] [--classes FILE]
c2am-eval --workdir DIR [--step N|best] --gather_logits IMAGES
c2am-eval --annotations GT.json --predictions DT.json --iou_type bbox|segm|boundary [--output metrics.json]
          [--fixed] [--caps 12,25,50] [--categories table.csv] [--protocol coco] [--images DIR] [--classes FILE]

A workdir is enough: its config.json says the rest. --config NAME_OR_FILE evaluates it with another config; results of
other settings than the run's get a folder of their own. In a clone: python eval.py.
--report report.html --against OTHER_WORKDIR compares the results of two runs, or of two files, on one page.
Both forms write a page about it with --report report.html, and compare their numbers with those of the public lvis
package with --official (exit status 1 if they differ).
"""

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from c2am_jax import command_line
from c2am_jax.errors import STEP_HELP, UserError, checkpoint_step
from c2am_jax.files import as_path, is_remote, write_output
from c2am_jax.storage import check_output

if TYPE_CHECKING:
    from c2am_jax.evaluation.evaluate import Evaluated
    from c2am_jax.evaluation.result_classes import ResultClasses
    from c2am_jax.experiment import Experiment

_STEP = flags.DEFINE_string("step", None, f"{STEP_HELP[0].upper()}{STEP_HELP[1:]}.")
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "LVIS json to score against, without any model.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "LVIS results json to score.")
_IOU_TYPE = flags.DEFINE_enum("iou_type", "bbox", ["bbox", "segm", "boundary"], "Boxes, masks or contours overlap.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write the metrics as json.")
_FIXED = flags.DEFINE_bool(
    "fixed", False, "AP-fixed and AP-pool: the 10,000 best of each category count, however many per image."
)
_CAPS = flags.DEFINE_list(
    "caps", [], "Also AP when only the best K detections of each image count: --caps 12,25,50; LVIS counts 300."
)
_CATEGORIES = flags.DEFINE_string("categories", None, "Where to write AP of each category as csv.")
_CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "What the category ids of --predictions mean, or the detector's classes: a json with categories, or a workdir. "
    "Classes go by name. Default: classes.json beside the predictions, or the workdir's categories.json.",
)
_PROTOCOL = flags.DEFINE_enum("protocol", "lvis", ["lvis", "coco"], "Rules of scoring; coco for the COCO layout.")
_REPORT = flags.DEFINE_string("report", None, "Where to write a page with tables, charts and pictures.")
_AGAINST = flags.DEFINE_string(
    "against",
    None,
    "The page of --report compares with this: another run's workdir or the folder of its results "
    "(WORKDIR/eval/STEP); beside --predictions, another results file. Nothing is evaluated again.",
)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the images of --annotations, for the pictures of --report.")
_OFFICIAL = flags.DEFINE_bool("official", False, "Score with the lvis package too and print the differences.")
_SUBSET = flags.DEFINE_enum(
    "subset", None, ["minival"], "Only some images: minival, those of LVIS's validation set that are in COCO's val2017."
)
_GATHER_LOGITS = flags.DEFINE_integer(
    "gather_logits",
    None,
    "Only write the statistics of the checkpoint's logits over this many training images, for calibration logn.",
    lower_bound=1,
)


def _caps() -> tuple[int, ...]:
    """What --caps says, ascending. Raises UserError."""
    from c2am_jax.evaluation.caps import check_caps

    try:
        caps = tuple(sorted({int(text) for text in _CAPS.value}))
    except ValueError:
        raise UserError(f"--caps {','.join(_CAPS.value)}: give whole numbers, such as --caps 12,25,50") from None
    check_caps(caps)
    if caps and _FIXED.value:
        raise UserError("--caps does not go with --fixed: AP-fixed has no cap of detections per image; leave one out")
    return caps


def score(annotations: str, predictions: str) -> None:
    """Score a results file against annotations: print the tables and write what the flags ask for."""
    from c2am_jax.evaluation.result_classes import classes_of_results
    from c2am_jax.evaluation.tables import ap_table, caps_table, pool_line, threshold_line, write_csv

    kind, classes = _IOU_TYPE.value, classes_of_results(predictions, _CLASSES.value)
    caps, rows = _caps(), []
    if _PROTOCOL.value == "coco":
        if _FIXED.value or _CATEGORIES.value or _REPORT.value or _SUBSET.value or caps:
            raise UserError("--fixed, --caps, --categories, --report and --subset go with --protocol lvis")
        from c2am_jax.evaluation.coco_ap import evaluate_coco_file

        found = evaluate_coco_file(annotations, predictions, kind, classes=classes, show=print)
    else:
        from c2am_jax.data.minival import chosen_images
        from c2am_jax.evaluation.caps import capped, metrics_of
        from c2am_jax.evaluation.lvis_ap import evaluate_file

        scored = evaluate_file(
            annotations,
            predictions,
            kind,
            fixed=_FIXED.value,
            evidence=bool(_REPORT.value),
            classes=classes,
            images=chosen_images(annotations, _SUBSET.value or "all"),
            show=print,
        )
        rows = capped(scored, caps)
        found = scored.metrics() | (scored.pooled() if _FIXED.value else {}) | metrics_of(rows)
        if _CATEGORIES.value:
            write_csv(_CATEGORIES.value, scored.category_table())
    metrics = {f"{kind}/{name}": value for name, value in found.items()}
    print(ap_table(metrics))
    if _PROTOCOL.value == "lvis":
        if _FIXED.value:
            print(pool_line(found, kind))
        print(threshold_line(scored.thresholds(), kind))
    if rows:
        print(f"\n{caps_table(rows, kind)}")
    if _OUTPUT.value:
        write_output(_OUTPUT.value, json.dumps(metrics, indent=2))
    if _REPORT.value:
        from c2am_jax.report.results_report import results_report

        results_report(as_path(_REPORT.value), annotations, predictions, kind, scored, _IMAGES.value, caps)
    if _OFFICIAL.value:
        _compare(annotations, {kind: (predictions, found)}, classes)


def _inspect(experiment: "Experiment", evaluated: "Evaluated") -> None:
    """What --report and --official make of a checkpoint's evaluation."""
    if _REPORT.value:
        from c2am_jax.report.checkpoint_report import checkpoint_report

        checkpoint_report(as_path(_REPORT.value), experiment, evaluated)
    if _OFFICIAL.value:
        files = {kind: evaluated.folder / f"detections_{kind}.json" for kind in evaluated.scored}
        scored = {kind: (files[kind], found.metrics()) for kind, found in evaluated.scored.items()}
        _compare(evaluated.dataset.annotations_path, scored)


def _compare(
    annotations: str | Path,
    scored: Mapping[str, tuple[str | Path, Mapping[str, float]]],
    classes: "ResultClasses | None" = None,
) -> None:
    """Print the lvis package's numbers beside ours, {IoU type: (results file, metrics)}; status 1 if they differ."""
    from c2am_jax.evaluation.official import compare

    equal = True
    for kind, (predictions, ours) in scored.items():
        text, same = compare(annotations, predictions, kind, ours, classes)
        print(f"\n{text}")
        equal = equal and same
    if not equal:
        sys.exit(1)


def _check_official() -> None:
    """Before anything is scored: flags that the lvis package knows nothing of, and the package itself."""
    from c2am_jax.evaluation.official import official_package

    others = {
        "--iou_type=boundary": _IOU_TYPE.value == "boundary",
        "--fixed": _FIXED.value,
        "--subset": _SUBSET.value,
        "--protocol=coco": _PROTOCOL.value == "coco",
        "--gather_logits": _GATHER_LOGITS.value,
    }
    for flag in (flag for flag, given in others.items() if given):
        raise UserError(f"--official does not go with {flag}: the lvis package scores LVIS AP of bbox and segm only")
    official_package()


def _check_of_checkpoint() -> None:
    """Flags that only a results file takes."""
    others = {
        "--categories": (_CATEGORIES.value, "writes these rows into category_ap.json of its folder"),
        "--iou_type": (_IOU_TYPE.present, "scores boxes and masks"),
        "--fixed": (_FIXED.value, "scores the detections that the run keeps"),
        "--protocol=coco": (_PROTOCOL.value == "coco", "scores LVIS AP"),
    }
    for flag, (given, instead) in others.items():
        if given:
            raise UserError(
                f"{flag} goes with --annotations and --predictions; a checkpoint's evaluation {instead}. Score its "
                "detections_bbox.json or detections_segm.json with them"
            )


def _check_against(against: str) -> None:
    """Flags that say nothing about a comparison of results that are there."""
    if not _REPORT.value:
        raise UserError(f"--against {against} makes a page about two runs: give --report FILE.html too")
    others = {
        "--official": _OFFICIAL.value,
        "--gather_logits": _GATHER_LOGITS.value,
        "--protocol=coco": _PROTOCOL.value == "coco",
        "--fixed": _FIXED.value,
        "--caps": _CAPS.value,
        "--output": _OUTPUT.value,
        "--categories": _CATEGORIES.value,
    }
    for flag in (flag for flag, given in others.items() if given):
        raise UserError(f"--against does not go with {flag}: it compares the LVIS AP of two results; leave one out")


def compare_results(report: Path, against: str, annotations: str, predictions: str) -> None:
    """Write the page about two results files."""
    from c2am_jax.data.minival import chosen_images
    from c2am_jax.report.comparison.files import compare_files

    images = chosen_images(annotations, _SUBSET.value or "all")
    compare_files(
        report,
        annotations,
        predictions,
        against,
        _IOU_TYPE.value,
        folder=_IMAGES.value,
        images=images,
        classes=_CLASSES.value,
    )


def main(_) -> None:
    """Score a file if one is given, else evaluate a checkpoint."""
    for flag in (_OUTPUT, _CATEGORIES, _REPORT):
        if flag.value:
            check_output(f"--{flag.name}", flag.value)
    if _REPORT.value and _IMAGES.value and not Path(_IMAGES.value).is_dir():
        raise UserError(f"--images {_IMAGES.value}: no such folder")
    step = None if _STEP.value is None else checkpoint_step(_STEP.value)
    if _OFFICIAL.value:
        _check_official()
    report, against = as_path(_REPORT.value or ""), _AGAINST.value
    if against:
        _check_against(against)
    if _ANNOTATIONS.value and _PREDICTIONS.value:
        if against:
            return compare_results(report, against, _ANNOTATIONS.value, _PREDICTIONS.value)
        return score(_ANNOTATIONS.value, _PREDICTIONS.value)
    workdir = command_line.WORKDIR.value
    if workdir and (is_remote(workdir) or (Path(workdir).is_dir() and not against)):
        check_output("--workdir", as_path(workdir) / "eval", folder=True)
    _check_of_checkpoint()
    if command_line.CONFIG.value is None:
        if workdir:
            raise UserError(
                f"{workdir}: no run there (no config.json); give --workdir DIR of a run that was started, or --config "
                "as well"
            )
        raise UserError("give --workdir DIR of a run, or --annotations together with --predictions")
    from c2am_jax.config import parse

    experiment = parse(command_line.given_config(), show=print)
    if _SUBSET.value:
        experiment = experiment.changed({"eval.subset": _SUBSET.value})
    if _CAPS.value:
        experiment = experiment.changed({"eval.caps": _caps()})
    workdir = workdir or Path("runs") / experiment.name
    if against:
        from c2am_jax.report.comparison.runs import compare_runs

        return compare_runs(
            report,
            workdir,
            against,
            given=experiment,
            step=step,
            subset=_SUBSET.value,
            folder=_IMAGES.value,
        )
    command_line.check_environment()
    from c2am_jax.training.checkpoint_evaluation import evaluate_checkpoint, gather_logits

    if _GATHER_LOGITS.value:
        print(gather_logits(experiment, workdir, step, _GATHER_LOGITS.value))
        return
    inspect = functools.partial(_inspect, experiment) if _REPORT.value or _OFFICIAL.value else None
    metrics = evaluate_checkpoint(experiment, workdir, step, inspect, show=print, classes=_CLASSES.value)
    if _OUTPUT.value and metrics:  # the first process has them
        write_output(_OUTPUT.value, json.dumps(metrics, indent=2))


def run() -> None:
    """The command."""
    command_line.run(main, __doc__ or "", command_line.with_config_of_workdir)


if __name__ == "__main__":
    run()
