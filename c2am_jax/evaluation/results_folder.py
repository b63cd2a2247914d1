"""Which settings decide what an evaluation scores, and the folder that keeps results of other settings apart."""

import hashlib
import json
from pathlib import Path
from typing import Any

from c2am_jax.experiment import Experiment, flat
from c2am_jax.files import as_path

FILE = "settings.json"  # of an evaluation's folder
TRAINING_ONLY = frozenset(  # of `config.data`
    "annotations images max_instances sampler repeat_threshold held_out short_sides flip_probability scale_jitter "
    "copy_paste color_jitter workers".split()
)
PARTS = {"eval.split": "val", "eval.subset": "all"}  # what is scored, if not all of "val"
_USUAL = PARTS | {"eval.compute_dtype": "float32"}  # told where they are not so
_TEST = ("data.test_annotations", "data.test_images")
INFERENCE = ("model.test.", "model.rpn.pre_nms_test", "model.rpn.post_nms_test", "calibration.")


def scored_settings(experiment: Experiment) -> dict[str, Any]:
    """What decides the scores of a checkpoint, by dotted key: validation data, sizes, thresholds, calibration."""
    settings = flat(experiment.as_json())
    settings["data.val_images"] = settings["data.val_images"] or settings["data.images"]
    settings["eval.compute_dtype"] = experiment.prediction_dtype
    other = {key: settings[key] for key in _USUAL if settings[key] != _USUAL[key]}
    if "eval.split" not in other:  # an evaluation of "val" is the same whatever "test" is
        for key in _TEST:
            del settings[key]
    return {**_scored(settings), **other}


def _scored(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key.startswith(INFERENCE) or (key.startswith("data.") and key.removeprefix("data.") not in TRAINING_ONLY)
    }


def differences(run: Experiment, given: Experiment) -> dict[str, tuple[Any, Any]]:
    """Scored settings in which `given` is not as the `run`, by key: (the run's, the given)."""
    there, here = flat(run.as_json()) | _USUAL | scored_settings(run), _USUAL | scored_settings(given)
    before = {key: there[key] for key in here}
    return {key: (before[key], here[key]) for key in here if before[key] != here[key]}


def differences_line(found: dict[str, tuple[Any, Any]]) -> str:
    """`differences` as a line to print."""
    changes = "; ".join(f"{key} {_shown(there)} -> {_shown(here)}" for key, (there, here) in found.items())
    return f"scored with other settings than the run: {changes}"


def results_folder(workdir: str | Path, step: int, run: Experiment, given: Experiment) -> Path:
    """Where results of `given` go: ``eval/STEP`` for the run's own settings, else a folder for these settings alone.

    The split "test", the subset "minival" and a calibration are in the folder's name; other settings are a number made
    of all of them, and ``settings.json`` there tells which. Results of earlier settings, such as of a run that
    resumed with others, are not overwritten either.
    """
    changed, name = differences(run, given), given.calibration.name
    parts = {"val": "", "all": "", "none": ""}
    named = [parts.get(part, part) for part in (given.eval.split, given.eval.subset, name)]
    folder = as_path(workdir) / "eval" / "-".join([f"{step}", *filter(None, named)])
    settings = scored_settings(given)
    if set(changed) <= {"calibration.name", *PARTS, *_TEST} and _settings_of(folder) in (None, settings):
        return folder
    number = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}-{number}")


def _settings_of(folder: Path) -> dict[str, Any] | None:
    """What an earlier evaluation wrote there; None without one, and for one of a version that wrote no settings."""
    try:
        return json.loads((folder / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _shown(value: Any) -> str:
    return repr(value) if value in ("", [], None) or " " in str(value) else str(value)
