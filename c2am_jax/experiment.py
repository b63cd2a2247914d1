"""One experiment as a frozen value: what a config file and the flags say, parsed and checked once by `config.parse`.

`Experiment.as_dict` is the layout of ``config.json``; each default, unit and check stands at its field.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from c2am_jax.checks import (
    Allowed,
    Below1,
    Count,
    Natural,
    NonNegative,
    Settings,
    Share,
    Text,
    WrongSetting,
    one_of,
    unknown,
    wrong,
)
from c2am_jax.data.minival import SUBSETS
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.files import as_path
from c2am_jax.losses.calibration import CalibrationSettings
from c2am_jax.losses.methods import checked_parameters, method_parameters
from c2am_jax.models.architecture import MaskRCNNSettings

# Keys that older versions wrote into config.json; where nothing knows them any more, they are left out.
OBSOLETE = frozenset({"loss.features"})  # the width of the head, which it tells its method itself

# Settings that have another name now, and what to write instead.
RENAMED = {
    "train.lr_epochs": "config.train.lr_drops says where the rate drops, as shares of the run: epochs (16, 22) of 24 "
    "are (0.6667, 0.9167)"
}
RANDOM = "random"  # `train.init`: no weights of others
IMAGENET = "imagenet"  # `train.init`: ImageNet's of the backbone's depth

COMPUTE_DTYPES = ("float32", "bfloat16")
_SEED = Allowed("a whole number from 0 to below 2**63", lambda seed: 0 <= seed < 2**63)
_EVAL_EVERY = Allowed("a number of steps, 0 (never) or -1 (once at the end)", lambda steps: steps >= -1)
_SHARES = Allowed(
    "ascending shares of the run from 0 to 1",
    lambda shares: [*shares] == sorted({*shares}) and all(0 <= share <= 1 for share in shares),
)
_WARMUP = Allowed("a number of steps, or -1 (as long as the run allows)", lambda steps: steps >= -1)
_STEPS = Allowed("ascending steps from 1 on", lambda steps: [*steps] == sorted({*steps}) and min(steps, default=1) >= 1)

_CAPS = Allowed(
    "ascending numbers from 1 to 300, the most detections of an image that LVIS AP scores",
    lambda caps: [*caps] == sorted({*caps}) and all(1 <= cap <= 300 for cap in caps),
)


@dataclasses.dataclass(frozen=True)
class TrainSettings(Settings):
    """`config.train`; the defaults are the paper's schedule.

    Attributes:
      epochs: length of the run, where `steps` is 0.
      steps: length of the run instead; 0 means that `epochs` says it.
      batch_size: global.
      base_lr: per 16 images, scaled linearly with the batch; times `lr_gamma` at each drop.
      lr_drops: where the rate drops, as shares of the run's length.
      lr_steps: where it drops instead, in steps; () leaves it to `lr_drops`.
      warmup_steps: linear warm-up; -1 means 500, but at most `warmup_share` of the run.
      warmup_factor: the share of the rate that the warm-up begins with.
      grad_clip: largest global gradient norm; 0 means none.
      log_every, checkpoint_every: in steps.
      eval_every: in steps; -1 once at the end, 0 never.
      keep: checkpoints that stay.
      init: initial weights: "random", "imagenet" (those of the backbone's depth), another name, a URL, a file or a
        workdir, see `training.initial`; "" of older versions is read as "random".
      reset_classifier: let classes that `init` does not have, and classifiers of another class count, start random.
      reset: names of arrays that start again though `init` has them, as patterns: ``("*.fc_cls.*",)``.
      trainable: names of the parameters that train, as patterns; all others stay as `init` has them. () trains all.
      accumulate: parts that each device's images are split into, so that a large batch fits on few devices.
      compute_dtype: of features, "float32" or "bfloat16".
    """

    epochs: Count = 24
    steps: Natural = 0
    batch_size: Count = 16
    base_lr: NonNegative = 0.02
    lr_drops: Annotated[tuple[float, ...], _SHARES] = (16 / 24, 22 / 24)
    lr_steps: Annotated[tuple[int, ...], _STEPS] = ()
    lr_gamma: Share = 0.1
    warmup_steps: Annotated[int, _WARMUP] = -1
    warmup_share: Share = 0.1
    warmup_factor: Share = 0.001
    momentum: Below1 = 0.9
    weight_decay: NonNegative = 1e-4
    grad_clip: NonNegative = 0.0
    log_every: Count = 50
    checkpoint_every: Count = 2000
    eval_every: Annotated[int, _EVAL_EVERY] = -1
    keep: Count = 3
    seed: Annotated[int, _SEED] = 0
    init: str = RANDOM
    reset_classifier: bool = False
    reset: tuple[Text, ...] = ()
    trainable: tuple[Text, ...] = ()
    accumulate: Count = 1
    compute_dtype: Annotated[str, one_of(*COMPUTE_DTYPES)] = "float32"

    def relations(self) -> None:
        """The batch has equal parts; `init` says what it means."""
        if not self.init:
            object.__setattr__(self, "init", RANDOM)
        if self.batch_size % self.accumulate:
            raise wrong("accumulate", self.accumulate, f"a divisor of batch_size={self.batch_size}")


@dataclasses.dataclass(frozen=True)
class LossSettings(Settings):
    """`config.loss`: a method of `losses.methods` and its parameters, whose defaults stand at its function."""

    name: Text
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def relations(self) -> None:
        """The method knows each parameter; those that are not given have its defaults."""
        try:
            object.__setattr__(self, "parameters", checked_parameters(self.name, self.parameters))
        except WrongSetting:
            raise
        except ValueError as error:
            raise WrongSetting("name", f"={self.name!r}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LossSettings":
        """From the method's name and its parameters beside it. Raises WrongSetting."""
        return cls(values.get("name", ""), {key: value for key, value in values.items() if key != "name"})

    def as_dict(self) -> dict[str, Any]:
        """Inverse of `from_dict`."""
        return {"name": self.name, **self.parameters}


@dataclasses.dataclass(frozen=True)
class EvalSettings(Settings):
    """`config.eval`.

    Attributes:
      batch_size: of all processes, rounded up to their devices.
      split: what eval.py evaluates on: "val", or "test" (`data.test_annotations`); training uses "val".
      subset: "all", or "minival": the images of LVIS's validation set that are in COCO's val2017.
      caps: AP also when only so many of the best detections of each image count, see `evaluation.caps`.
      compute_dtype: of features in prediction, "float32", "bfloat16", or "train": that of `train.compute_dtype`.
    """

    batch_size: Count = 8
    split: Annotated[str, one_of("val", "test")] = "val"
    subset: Annotated[str, one_of(*SUBSETS)] = "all"
    caps: Annotated[tuple[int, ...], _CAPS] = ()
    compute_dtype: Annotated[str, one_of("train", *COMPUTE_DTYPES)] = "train"


@dataclasses.dataclass(frozen=True)
class Experiment(Settings):
    """All that a run is made of; `name` is that of its default workdir, runs/NAME."""

    name: Text
    loss: LossSettings
    model: MaskRCNNSettings = MaskRCNNSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    calibration: CalibrationSettings = CalibrationSettings()

    @property
    def prediction_dtype(self) -> str:
        """Of features in prediction, "float32" or "bfloat16"."""
        return self.train.compute_dtype if self.eval.compute_dtype == "train" else self.eval.compute_dtype

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Experiment":
        """From the layout of ``config.json``, also of an older version: what is missing has its default.

        Raises:
          WrongSetting: an unknown key, or a value that is not allowed.
        """
        return super().from_dict(_with_shares(_without_obsolete(values)))

    def as_json(self) -> dict[str, Any]:
        """`as_dict` as it reads from ``config.json``: lists for tuples."""
        return json.loads(json.dumps(self.as_dict()))

    def changed(self, values: Mapping[str, Any]) -> "Experiment":
        """The same with other `values`, by keys such as "train.steps". Raises WrongSetting as `from_dict`."""
        tree = self.as_dict()
        for key, value in values.items():
            *groups, last = key.split(".")
            place: Any = tree
            for group in groups:
                place = place.get(group) if isinstance(place, dict) else None
            if not isinstance(place, dict) or last not in place:
                raise unknown(key, flat(self.as_dict()))
            place[last] = value
        return type(self).from_dict(tree)


def read_experiment(file: str | Path) -> Experiment:
    """The experiment of a ``config.json``, also of an older version. Raises UserError for a damaged or another file."""
    try:
        values = json.loads(as_path(file).read_text())
        if not isinstance(values, dict) or "loss" not in values:
            raise UserError(f"{file}: not the config.json of a run")
        return Experiment.from_dict(values)
    except WrongSetting as error:
        raise UserError(f"{file}: {error}") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error}); checkpoints hold their config too") from None


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _without_obsolete(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without what is in `OBSOLETE`, but for parameters that the method of the tree has."""
    left = dict(tree)
    for group, name in (key.split(".", 1) for key in OBSOLETE):
        values = left.get(group)
        if isinstance(values, Mapping) and name in values and not (group == "loss" and _has_parameter(values, name)):
            left[group] = {key: value for key, value in values.items() if key != name}
    return left


def _with_shares(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with `lr_drops` for the `train.lr_epochs` of older versions."""
    train = tree.get("train")
    if not isinstance(train, Mapping) or "lr_epochs" not in train:
        return dict(tree)
    left = {key: value for key, value in train.items() if key != "lr_epochs"}
    length = left.get("epochs", TrainSettings.epochs)
    if not left.get("steps") and train["lr_epochs"]:
        left["lr_drops"] = tuple(epoch / length for epoch in train["lr_epochs"] if epoch <= length)
    return {**tree, "train": left}


def _has_parameter(loss: Mapping[str, Any], name: str) -> bool:
    try:
        return name in method_parameters(loss["name"])
    except (KeyError, ValueError):
        return False
