"""The experiment tree that the files in configs/ return: one place for every default.

``config.model`` is `models.settings.MaskRCNNSettings`, ``config.loss`` a method of `losses.classification` with its
parameters, ``config.data`` says where the data is and how batches are made (`data.settings.PipelineSettings`),
``config.train`` the schedule, ``config.eval`` the evaluation, ``config.calibration`` what eval.py does to the scores.
"""

import dataclasses
import runpy
from typing import Any

from ml_collections import ConfigDict

from c2am_jax import config_files
from c2am_jax.errors import UserError
from c2am_jax.losses.calibration import CalibrationSettings
from c2am_jax.losses.methods import make_classification, method_parameters
from c2am_jax.models.settings import (
    REFERENCE_CASCADE,
    BackboneSettings,
    BoxHeadSettings,
    CascadeSettings,
    FPNSettings,
    MaskHeadSettings,
    MaskRCNNSettings,
    RPNSettings,
    TestSettings,
    cascade_mask_rcnn,
)

LVIS_CLASSES = {"v1": 1203, "v05": 1230}


def _data() -> dict[str, Any]:
    return {
        "name": "lvis_v1",
        "dir": "data",
        "annotations": "",
        "images": "",
        "val_annotations": "",
        "val_images": "",
        "canvas": 640,
        "max_instances": 300,
        "sampler": "random",
        "repeat_threshold": 1e-3,
        "held_out": 0.0,
        "short_sides": (640, 672, 704, 736, 768, 800),
        "max_side": 1333,
        "flip_probability": 0.5,
        "buckets": ((800, 1088), (1088, 800), (800, 1344), (1344, 800)),
        "scale_jitter": (),
        "copy_paste": 0.0,
        "color_jitter": (),
        "test_short_side": 800,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "workers": 8,
    }


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """`config.train`; the defaults are the paper's schedule.

    Attributes:
      epochs, steps: length of the run; positive `steps` win.
      batch_size: global.
      base_lr: per 16 images, scaled linearly with the batch; times `lr_gamma` at each of `lr_epochs`.
      lr_steps: where the rate drops instead, in steps; () leaves it to `lr_epochs`.
      warmup_steps, warmup_factor: linear warm-up from this share of the rate.
      grad_clip: largest global gradient norm; 0 means none.
      log_every, checkpoint_every: in steps.
      eval_every: in steps; -1 once at the end, 0 never.
      keep: checkpoints that stay.
      init: initial weights, see `training.initial`; "" means random.
      reset_classifier: let classifiers of another class count in `init` start random.
      reset: names of arrays that start anew though `init` has them, as patterns: ``("*.fc_cls.*",)``.
      trainable: names of the parameters that train, as patterns; all others stay as `init` has them. () trains all.
      accumulate: parts that each device's images are split into, so that a large batch fits on few devices.
      compute_dtype: of features, "float32" or "bfloat16".
    """

    epochs: int = 24
    steps: int = 0
    batch_size: int = 16
    base_lr: float = 0.02
    lr_epochs: tuple[float, ...] = (16, 22)
    lr_steps: tuple[int, ...] = ()
    lr_gamma: float = 0.1
    warmup_steps: int = 500
    warmup_factor: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 1e-4
    grad_clip: float = 0.0
    log_every: int = 50
    checkpoint_every: int = 2000
    eval_every: int = -1
    keep: int = 3
    seed: int = 0
    init: str = ""
    reset_classifier: bool = False
    reset: tuple[str, ...] = ()
    trainable: tuple[str, ...] = ()
    accumulate: int = 1
    compute_dtype: str = "float32"


def _experiment(name: str, method: str, settings: MaskRCNNSettings, data: dict, train: dict, batch: int) -> ConfigDict:
    return ConfigDict(
        {
            "name": name,
            "model": dataclasses.asdict(settings),
            "loss": {"name": method, **method_parameters(method)},
            "data": _data() | data,
            "train": dataclasses.asdict(TrainSettings()) | train,
            "eval": {"batch_size": batch},
            "calibration": dataclasses.asdict(CalibrationSettings()),
        }
    )


def lvis(name: str, method: str, *, depth: int = 50, version: str = "", cascade: bool = False) -> ConfigDict:
    """Mask R-CNN or Cascade Mask R-CNN on LVIS with the paper's settings.

    Args:
      name: of the experiment; its default workdir is runs/NAME.
      method: `config.loss.name`, a name of `losses.methods.METHODS` or ``MODULE:FUNCTION``.
      depth: 50 or 101.
      version: "v1" (also "") or "v05", the argument behind the colon of ``--config=FILE:v05``.
      cascade: three stages, each with its own classifier.
    """
    version = version or "v1"
    if version not in LVIS_CLASSES:
        raise UserError(f"LVIS version {version!r}: there are {', '.join(LVIS_CLASSES)}")
    detector = cascade_mask_rcnn if cascade else MaskRCNNSettings
    settings = detector(num_classes=LVIS_CLASSES[version], backbone=BackboneSettings(depth=depth))
    suffix = "" if version == "v1" else f"_{version}"
    return _experiment(name + suffix, method, settings, {"name": f"lvis_{version}"}, {}, 8)


def glyphs(name: str, method: str, *, cascade: bool = False) -> ConfigDict:
    """A small detector on the built-in data, trained from scratch in minutes on two CPU cores."""
    box_head = BoxHeadSettings(fc_channels=256, finest_scale=28, samples=48, class_agnostic=True)
    if cascade:
        box_head = dataclasses.replace(box_head, match_low_quality=False, smooth_l1_beta=1.0)
    settings = MaskRCNNSettings(
        num_classes=100,
        backbone=BackboneSettings(depth=10, width=24, norm="group_norm", frozen_stages=-1),
        fpn=FPNSettings(channels=48, norm="group_norm"),
        rpn=RPNSettings(
            anchor_scale=5.0,
            samples=64,
            pre_nms_train=200,
            post_nms_train=100,
            pre_nms_test=200,
            post_nms_test=100,
        ),
        box_head=box_head,
        cascade=REFERENCE_CASCADE if cascade else CascadeSettings(),
        mask_head=MaskHeadSettings(class_agnostic=True, convs=2, channels=48),
        test=TestSettings(max_detections=100),
    )
    data = {
        "name": "glyphs",
        "canvas": 128,
        "max_instances": 12,
        "short_sides": (128,),
        "max_side": 128,
        "flip_probability": 0.0,
        "buckets": ((128, 128),),
        "test_short_side": 128,
        "workers": 2,
    }
    train = {
        "epochs": 4,
        "batch_size": 8,
        "base_lr": 0.06,
        "lr_epochs": (2.8, 3.6),
        "warmup_steps": 200,
        "log_every": 20,
        "checkpoint_every": 500,
    }
    return _experiment(name, method, settings, data, train, 10)


# How each method was published where that differs from the paper's own recipe (24 epochs, random sampling).
PUBLISHED: dict[str, dict[str, Any]] = {
    "eql": {"train.epochs": 12, "train.lr_epochs": (8, 11)},
    "seesaw": {"data.sampler": "repeat_factor"},
    "balanced_sigmoid": {"data.sampler": "repeat_factor"},
    "fasa": {"data.sampler": "repeat_factor"},
    "forest": {"data.short_sides": (800,), "model.rpn.post_nms_train": 2000, "train.grad_clip": 35.0},
    "acsl": {"model.test.score_threshold": 0.0},
    "gol": {"data.sampler": "repeat_factor", "model.mask_head.predictor": "normed", "model.test.nms_iou": 0.3},
}
# The same for all methods: 24 epochs, several scales, plain mask head (all defaults), and repeat-factor sampling.
UNIFORM: dict[str, Any] = {"data.sampler": "repeat_factor"}
# Image frequency below which a class is tail (EQL, GOL); the losses' default is that of v1.0.
TAIL_FREQUENCY_V05 = 1.77e-3


def method(name: str, method: str, argument: str = "") -> ConfigDict:
    """A method of `losses.methods` with Mask R-CNN R50-FPN on LVIS, or with the small detector on glyphs.

    Args:
      name: of the experiment.
      method: as in `lvis`.
      argument: behind the colon of ``--config=FILE:ARGUMENT``. Data "v1" (also "") or "v05", and a preset
        "as_published" (also "") or "uniform", joined by "+" where both are named: "v05+uniform"; or "glyphs", whose
        recipe is one for all.

    Raises:
      UserError: an argument that is none of these.
    """
    if argument == "glyphs":
        return glyphs(f"glyphs_{name}", method)
    parts = [part for part in argument.split("+") if part]
    version = next((part for part in parts if part in LVIS_CLASSES), "v1")
    preset = next((part for part in parts if part in ("as_published", "uniform")), "as_published")
    if not set(parts) <= {version, preset} or len(parts) > 2:
        raise UserError(f"{argument!r}: give glyphs, or v1 or v05, as_published or uniform, joined by +")
    suffix = "_uniform" if preset == "uniform" else ""
    config = lvis(f"maskrcnn_r50_{name}{suffix}", method, version=version)
    if version == "v05" and "tail_frequency" in method_parameters(method):
        config.loss.tail_frequency = TAIL_FREQUENCY_V05
    config.update_from_flattened_dict(UNIFORM if preset == "uniform" else PUBLISHED.get(method, {}))
    return config


def second_stage(
    name: str,
    loss: str,
    data: str = "",
    *,
    trainable: tuple[str, ...],
    reset: tuple[str, ...] = (),
    sampler: str = "random",
    steps: int = 0,
    epochs: int = 12,
    drops: tuple[float, ...],
    base_lr: float = 0.02,
    grad_clip: float = 0.0,
) -> ConfigDict:
    """A method that goes on from a trained detector, most of it frozen; `config.train.init` names the first stage.

    Args:
      name: of the experiment.
      loss: as `method` in `lvis`.
      data: "v1" (""), "v05" or "glyphs", where training takes 200 steps.
      trainable: patterns of the parameters that train.
      reset: patterns of the parameters that start anew.
      sampler: of images.
      steps, epochs: length of the run; positive steps win.
      drops: where the rate drops: steps if `steps` is given, else epochs.
      base_lr: per 16 images.
      grad_clip: largest gradient norm; 0 none.
    """
    config = method(name, loss, data)
    train = config.train
    train.trainable, train.reset = trainable, reset
    train.base_lr, train.grad_clip = base_lr, grad_clip
    config.data.sampler = sampler
    if data == "glyphs":
        train.steps, train.lr_steps, train.warmup_steps = 200, (140, 180), 20
    elif steps:
        train.steps, train.lr_steps = steps, drops
    else:
        train.epochs, train.lr_epochs = epochs, drops
    return config


def load_config(argument: str) -> ConfigDict:
    """The experiment that `config_files.find` finds: ``NAME``, ``FILE.py`` or either with ``:ARGUMENT``.

    Raises:
      UserError: no such file or name, or a value that it cannot take.
    """
    path, _, given = config_files.find(argument).partition(":")
    get_config = runpy.run_path(path)["get_config"]
    try:
        return get_config(given) if given else get_config()
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def without_obsolete(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a run's config.json without what only older versions had."""
    loss = tree.get("loss", {})
    if loss.get("name") in ("fasa", "loce"):
        loss.pop("features", None)  # the head's width, which a state is told now
    return tree


def train_settings(config: ConfigDict) -> TrainSettings:
    """`config.train` as the dataclass that training takes."""
    return TrainSettings(**config.to_dict()["train"])


def calibration_settings(config: ConfigDict) -> CalibrationSettings:
    """`config.calibration`; none for experiments that were written before there were any.

    Raises:
      UserError: an unknown calibration or parameter.
    """
    try:
        return CalibrationSettings(**config.to_dict().get("calibration", {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"config: {error}") from None


def detector_settings(config: ConfigDict) -> MaskRCNNSettings:
    """`config.model` as the dataclass that models take, checked together with `config.loss`.

    Raises:
      UserError: a key or value that the detector or the loss does not know.
    """
    try:
        settings = MaskRCNNSettings.from_dict(config.model.to_dict())
        make_classification(**config.loss.to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"config: {error}") from None
    return settings
