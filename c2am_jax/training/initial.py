"""Initial weights from a file or another run (`config.train.init`)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.experiment import TrainSettings
from c2am_jax.models.freezing import select
from c2am_jax.models.functional import Detector
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.weights.foreign import fit, read_weights, to_reference_names
from c2am_jax.weights.names import state_dict, torch_name

_LOG = logging.getLogger(__name__)


def initial_weights(schedule: TrainSettings, detector: Detector) -> Detector:
    """What a run starts from: a random detector, with the weights of `schedule.init` if it names any.

    Raises:
      UserError: as `load_initial_weights`; or parts are frozen and nothing says with which weights.
    """
    if schedule.init:
        fresh = {"reset_classifier": schedule.reset_classifier, "reset": schedule.reset}
        return load_initial_weights(schedule.init, detector, **fresh)
    if schedule.trainable:
        raise UserError(
            "config.train.trainable would freeze random weights: name the first stage's workdir with "
            "--config.train.init"
        )
    return detector


def load_initial_weights(
    path: str, detector: Detector, *, reset_classifier: bool = False, reset: Sequence[str] = ()
) -> Detector:
    """Replace every array that the source has; the others stay random, and are logged.

    Args:
      path: a file that `weights.foreign` reads (a whole detector, or a ResNet alone), or the workdir of another run:
        ``WORKDIR`` takes its newest checkpoint, ``WORKDIR/best`` the best, ``WORKDIR/checkpoints/STEP`` any other.
      detector: the new one.
      reset_classifier: classifiers of another class count start random instead of being an error.
      reset: patterns of our names (`models.freezing.select`): these start random whatever the source holds.

    Raises:
      UserError: no such file, nothing in it fits, it is of another model, or a pattern matches nothing.
    """
    if not Path(path).exists():
        raise UserError(f"config.train.init: no file or workdir {path}")
    shapes = {name: tuple(value.shape) for name, value in detector.arrays.items()}
    try:
        anew = select(shapes, reset, setting="config.train.reset")
    except ValueError as error:
        raise UserError(str(error)) from None
    if Path(path).is_dir():
        workdir, step, folder = _checkpoint_of(Path(path))
        found = state_dict(weights_of_workdir(workdir, step, folder=folder)[0])
    else:
        found = to_reference_names(read_weights(path), source=path)
    found = {name: value for name, value in found.items() if name not in {torch_name(own) for own in anew}}
    fitted = fit(found, shapes, source=path, reset_classifier=reset_classifier)
    _LOG.info("%s: %s", path, fitted.summary())
    return detector.with_arrays(fitted.arrays)


def _checkpoint_of(path: Path) -> tuple[Path, int | None, str]:
    """Workdir, step (None: the newest) and folder of checkpoints that a path of `config.train.init` names."""
    folders = ("checkpoints", "best")
    if path.name in folders:
        return path.parent, None, path.name
    if path.name.isdigit() and path.parent.name in folders:
        return path.parent.parent, int(path.name), path.parent.name
    return path, None, "checkpoints"


def weights_of_workdir(
    workdir: Path, step: int | None = None, *, folder: str = "checkpoints"
) -> tuple[dict[str, np.ndarray], int]:
    """Arrays by our names of a checkpoint (default: the newest) of a workdir's `folder`, and its step.

    Raises:
      UserError: there is no such checkpoint, or its files are not those that were saved.
    """
    if not (workdir / folder).is_dir():  # opening one would make it
        raise UserError(f"{workdir / folder}: no checkpoint; there are: none at all")
    with Checkpoints(workdir, name=folder) as checkpoints:
        return checkpoints.load_arrays(step)
