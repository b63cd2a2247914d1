"""Initial weights: published ones by name or address, a file, or another run (`config.train.init`)."""

import dataclasses
import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from c2am_jax import files
from c2am_jax.data.class_names import FILE, read_categories
from c2am_jax.errors import UserError, first_of
from c2am_jax.experiment import IMAGENET, RANDOM, Experiment, TrainSettings
from c2am_jax.files import as_path
from c2am_jax.models.freezing import select
from c2am_jax.models.functional import Detector
from c2am_jax.storage import storage_errors
from c2am_jax.training.checkpoint import NO_CHECKPOINT, Checkpoints, saved_steps
from c2am_jax.weights.classes import by_name
from c2am_jax.weights.download import local_copy
from c2am_jax.weights.foreign import Weights, fit, read_weights, to_reference_names
from c2am_jax.weights.names import state_dict, torch_name
from c2am_jax.weights.sources import find, is_remote

_LOG = logging.getLogger(__name__)
IMPORTED = "import.json"  # what `interop.import_torch` writes beside a checkpoint


def settings_of(experiment: Experiment) -> TrainSettings:
    """`config.train`, with the name of the weights that "imagenet" stands for."""
    if experiment.train.init != IMAGENET:
        return experiment.train
    return dataclasses.replace(experiment.train, init=f"{IMAGENET}:resnet{experiment.model.backbone.depth}")


def check_start(experiment: Experiment, workdir: str | Path) -> None:
    """What can be said of `config.train.init` before data and detector are there; nothing is downloaded.

    A workdir with checkpoints resumes from them, whatever the config says.

    Raises:
      UserError: an unknown name, no such file or workdir, or random weights of which some would be frozen.
    """
    if _resumes(workdir):
        return
    schedule, frozen = settings_of(experiment), experiment.model.backbone.frozen_stages
    if schedule.init != RANDOM:
        _known(schedule.init)
    elif schedule.trainable:
        raise _frozen_random(schedule, "config.train.trainable")
    elif frozen >= 0:
        raise _frozen_random(schedule, f"config.model.backbone.frozen_stages={frozen}")


def fetch(schedule: TrainSettings, workdir: str | Path) -> None:
    """Download what a first start in `workdir` needs, before any long work. Raises UserError as `load`."""
    if schedule.init != RANDOM and not files.is_remote(schedule.init) and not _resumes(workdir):
        local_copy(schedule.init)


def _resumes(workdir: str | Path) -> bool:
    return bool(saved_steps(as_path(workdir) / "checkpoints"))


def initial_weights(schedule: TrainSettings, detector: Detector, classes: Sequence[str] = ()) -> Detector:
    """What a run starts from: a random detector, with the weights of `schedule.init` if it names any.

    Args:
      schedule: says where the weights come from.
      detector: with random weights.
      classes: names of the training set's classes in its order.

    Raises:
      UserError: as `load`; or weights that are frozen would be random.
    """
    if schedule.init == RANDOM:
        taken = Loaded(detector)
    else:
        fresh = {"reset_classifier": schedule.reset_classifier, "reset": schedule.reset}
        taken = load(schedule.init, detector, classes=classes, **fresh)

    def frozen_of(kind: str) -> list[str]:
        return [name for name in detector.rest if name.endswith(kind) and name not in taken.given]

    frozen = frozen_of(".kernel")
    if frozen and schedule.init == RANDOM:
        setting = "config.train.trainable" if schedule.trainable else "config.model.backbone.frozen_stages"
        raise _frozen_random(schedule, f"{setting} ({first_of(frozen, 3)})")
    if schedule.init != RANDOM:
        frozen = frozen or frozen_of(".bias")  # such as that of a classifier that had none
    if frozen:
        raise UserError(
            f"{schedule.init} has no weights for {first_of(frozen, 3)}, which this run freezes: they would stay "
            "random. Name weights that have them with --config.train.init, or let them train "
            "(config.train.trainable, config.model.backbone.frozen_stages)"
        )
    return taken.detector


def _frozen_random(schedule: TrainSettings, what: str) -> UserError:
    if schedule.trainable:
        fix = "name the first stage's workdir with --config.train.init=WORKDIR"
    else:
        fix = (
            "name weights with --config.train.init (imagenet, a file, a URL or a workdir), or let all of the "
            "backbone train with --config.model.backbone.frozen_stages=-1"
        )
    return UserError(f"config.train.init={RANDOM}: {what} would freeze random weights: {fix}")


class Loaded(NamedTuple):
    """A detector with weights of a source, and our names of the arrays that are wholly from there."""

    detector: Detector
    given: Collection[str] = frozenset()


def load(
    source: str,
    detector: Detector,
    *,
    classes: Sequence[str] = (),
    reset_classifier: bool = False,
    reset: Sequence[str] = (),
) -> Loaded:
    """Replace every array that the source has; the others stay random, and are logged.

    Args:
      source: a name of `weights.sources` ("imagenet:resnet50") or a URL, which are downloaded into a cache; a file that
        `weights.foreign` reads (a whole detector, or a ResNet alone); or the workdir of another run: ``WORKDIR`` takes
        its newest checkpoint, ``WORKDIR/best`` the best, ``WORKDIR/checkpoints/STEP`` any other.
      detector: the new one.
      classes: names of this run's classes: where the source says its own, rows go by name (`weights.classes`).
      reset_classifier: classes that the source does not know, and classifiers of another class count, start random
        instead of being an error.
      reset: patterns of our names (`models.freezing.select`): these start random whatever the source holds.

    Raises:
      UserError: no such source, nothing in it fits, it is of another model, or a pattern matches nothing.
    """
    _known(source)
    place = as_path(source) if files.is_remote(source) else local_copy(source)
    shapes = {name: tuple(value.shape) for name, value in detector.arrays.items()}
    try:
        replaced = select(shapes, reset, setting="config.train.reset")
    except ValueError as error:
        raise UserError(str(error)) from None
    found = _of_workdir(place) if place.is_dir() else _of_file(place)
    named = {name: value for name, value in found.arrays.items() if name not in {torch_name(own) for own in replaced}}
    own = state_dict({name: np.asarray(value) for name, value in detector.arrays.items()})
    sorted_ = by_name(named, own, found.classes, classes, source=source, reset_classifier=reset_classifier)
    if sorted_.note:
        _LOG.info("%s: %s", source, sorted_.note)
    fitted = fit(sorted_.arrays, shapes, source=source, reset_classifier=reset_classifier)
    _LOG.info("%s: %s", source, fitted.summary())
    given = [name for name in fitted.arrays if torch_name(name) not in sorted_.random]
    return Loaded(detector.with_arrays(fitted.arrays), frozenset(given))


def _known(source: str) -> None:
    """Raises UserError for an unknown name, a wrong address, or a path where nothing is."""
    if files.is_remote(source):  # a workdir in a bucket, or one of its checkpoints
        with storage_errors(source):
            there = as_path(source).is_dir()
        if not there:
            raise UserError(f"config.train.init: no workdir {source}; files of weights are taken from local folders")
    elif is_remote(source):
        try:
            find(source)
        except UserError as error:
            raise UserError(f"config.train.init={source}: {error}") from None
    elif not Path(source).exists():
        raise UserError(f"config.train.init: no file or workdir {source}")


def _of_file(path: Path) -> Weights:
    found = read_weights(path)
    return Weights(to_reference_names(found.arrays, source=str(path)), found.classes)


def _of_workdir(path: Path) -> Weights:
    workdir, step, folder = _checkpoint_of(path)
    arrays, _ = weights_of_workdir(workdir, step, folder=folder)
    return Weights(state_dict(arrays), classes_of(workdir))


def classes_of(workdir: Path) -> tuple[str, ...]:
    """Names of a run's classes, or of those that weights were imported with; () if nobody wrote them down."""
    if (workdir / FILE).is_file():
        return read_categories(workdir / FILE).names
    file = workdir / IMPORTED
    try:
        return tuple(json.loads(file.read_text()).get("classes", ())) if file.is_file() else ()
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: not what c2am_jax.interop.import_torch writes ({error})") from None


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
        raise UserError(f"{workdir / folder}: {NO_CHECKPOINT}")
    with Checkpoints(workdir, name=folder) as checkpoints:
        return checkpoints.load_arrays(step)
