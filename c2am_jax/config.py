"""Experiments as the files in configs/ and the flags write them, and `parse`, the way to the frozen `Experiment`.

The tree is an ml_collections ConfigDict up to here, so that a flag can change any value; nothing behind sees it.
"""

import ast
import dataclasses
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict, config_dict

from c2am_jax import config_files
from c2am_jax.checks import WrongSetting
from c2am_jax.data.derived import FOLDER, KEYS, derived, is_open
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.experiment import IMAGENET, RANDOM, EvalSettings, Experiment, LossSettings, TrainSettings, read_experiment
from c2am_jax.losses.methods import METHODS, OWN, method_parameters
from c2am_jax.models import architecture

Tree = Any  # a ConfigDict, which types each value as a union of all that it can hold
LVIS_CLASSES = {"v1": 1203, "v05": 1230}


def parse(config: Tree, show: Callable[[str], None] | None = None) -> Experiment:
    """The tree as a checked value; `show` gets what was derived from the data (`own_data`), line by line.

    Raises:
      WrongSetting: one line that names the key, its value and what is allowed.
      UserError: files from which values are derived, and that are not there or not usable.
    """
    values = config.to_dict()
    if is_open(values):
        values, lines = derived(values, jax.device_count())
        for line in lines if show else ():
            show(line)
    try:
        return Experiment.from_dict(values)
    except WrongSetting as error:
        raise error.inside("config") from None


def tree(experiment: Experiment) -> Tree:
    """Inverse of `parse`: what flags and config files can change."""
    return ConfigDict(experiment.as_dict())


def get_config(file: str) -> Tree:
    """The tree of a run's ``config.json``: what ``--config FILE.json`` stands for, see `config_files.find`.

    Raises:
      UserError: not such a file, or a damaged one.
    """
    return tree(read_experiment(file))


def lvis(name: str, method: str, *, depth: int = 50, version: str = "", cascade: bool = False) -> Tree:
    """Mask R-CNN or Cascade Mask R-CNN on LVIS with the paper's settings, from ImageNet's weights of its depth.

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
    detector = architecture.cascade_mask_rcnn if cascade else architecture.MaskRCNNSettings
    settings = detector(num_classes=LVIS_CLASSES[version], backbone=architecture.BackboneSettings(depth=depth))
    suffix = "" if version == "v1" else f"_{version}"
    data = DataSettings(name=f"lvis_{version}")
    train = TrainSettings(init=IMAGENET)
    return tree(Experiment(name + suffix, LossSettings(method), settings, data, train))


def glyphs(name: str, method: str, *, cascade: bool = False) -> Tree:
    """A small detector on the built-in data, trained from scratch in minutes on two CPU cores."""
    box_head = architecture.BoxHeadSettings(fc_channels=256, finest_scale=28, samples=48, class_agnostic=True)
    if cascade:
        box_head = dataclasses.replace(box_head, match_low_quality=False, smooth_l1_beta=1.0)
    settings = architecture.MaskRCNNSettings(
        num_classes=100,
        backbone=architecture.BackboneSettings(depth=10, width=24, norm="group_norm", frozen_stages=-1),
        fpn=architecture.FPNSettings(channels=48, norm="group_norm"),
        rpn=architecture.RPNSettings(
            anchor_scale=5.0, samples=64, pre_nms_train=200, post_nms_train=100, pre_nms_test=200, post_nms_test=100
        ),
        box_head=box_head,
        cascade=architecture.REFERENCE_CASCADE if cascade else architecture.CascadeSettings(),
        mask_head=architecture.MaskHeadSettings(class_agnostic=True, convs=2, channels=48),
        test=architecture.TestSettings(max_detections=100),
    )
    data = DataSettings(
        name="glyphs",
        canvas=128,
        max_instances=12,
        short_sides=(128,),
        max_side=128,
        flip_probability=0.0,
        buckets=((128, 128),),
        test_short_side=128,
        workers=2,
    )
    train = TrainSettings(
        epochs=4,
        batch_size=8,
        base_lr=0.06,
        lr_drops=(0.7, 0.9),
        warmup_share=1 / 6,
        log_every=20,
        checkpoint_every=500,
    )
    # 100 detections of 100 classes never compete for their places; 25 do as on LVIS, which keeps 300 for 1203 classes.
    evaluation = EvalSettings(batch_size=10, caps=(25,))
    return tree(Experiment(name, LossSettings(method), settings, data, train, evaluation))


def glyphs_lvis(name: str, method: str) -> Tree:
    """The small detector of `glyphs` on the built-in data with LVIS v1.0's classes and counts.

    From scratch, in about 40 minutes on two CPU cores. It keeps 300 detections of an image, as on LVIS, so classes
    compete for them.
    """
    config = glyphs(name, method)
    config.update_from_flattened_dict(
        {
            "model.num_classes": LVIS_CLASSES["v1"],
            "model.test.max_detections": 300,
            "data.name": "glyphs_lvis",
            "train.epochs": 2,  # 5000 steps
            "train.log_every": 50,
            "train.checkpoint_every": 1000,
            "eval.caps": (),
        }
    )
    return config


SMALL = "small"  # the size that `own_data` has beside the usual one
BUILT_IN: dict[str, Callable[[str, str], Tree]] = {"glyphs": glyphs, "glyphs_lvis": glyphs_lvis}


def own_data(name: str = "", method: str = "c2am", *, small: bool = False) -> Tree:
    """Mask R-CNN R50-FPN for pictures of one's own, from weights that were trained on COCO.

    What follows from the data is left open (`data.derived`), unless a flag sets it.

    Args:
      name: of the experiment; by default that of the data.
      method: as in `lvis`.
      small: the small detector of `glyphs` from random weights instead, for small pictures and to try things out.
    """
    config = glyphs("own_data", method) if small else lvis("own_data", method)
    if small:
        config.data.flip_probability, config.eval.caps = 0.5, ()
    else:
        config.train.init, config.train.reset_classifier = COCO_DETECTOR, True  # rows of COCO's classes stay
    config.train.log_every = 20
    config.model.test.max_detections = 100
    config.data.update({FOLDER: ""})
    for key, kind in KEYS.items():
        group, _, last = key.rpartition(".")
        place = config.get_ref(group).get() if group else config
        del place[last]
        place[last] = config_dict.placeholder(kind)
    if name:
        config.name = name
    return config


def own_data_variant(argument: str) -> Tree:
    """`own_data` with the loss and the size that the argument behind the colon of ``--config=own_data:ARGUMENT`` names.

    Args:
      argument: "" (C2AM), "small", a loss as `method` in `lvis`, or both joined by "+": "small+softmax".

    Raises:
      UserError: a word that is neither, or more than one loss.
    """
    parts = [part for part in argument.split("+") if part]
    losses = [part for part in dict.fromkeys(parts) if part != SMALL]
    allowed = f"behind the colon stands {SMALL}, a loss, or both joined by + ({SMALL}+softmax)"
    for part in losses:
        if part not in METHODS and ":" not in part:
            raise UserError(
                f"own_data:{argument}: {part!r} is neither a size nor a loss: {allowed}; losses are "
                f"{', '.join(METHODS)}, or your own: {OWN}"
            )
    if len(losses) > 1:
        raise UserError(f"own_data:{argument}: two losses, {losses[0]} and {losses[1]}: {allowed}")
    return own_data(method=losses[0] if losses else "c2am", small=SMALL in parts)


COCO_DETECTOR = "coco:mask_rcnn_r50_fpn"
# The same for all methods: 24 epochs, several scales, plain mask head (all defaults), and repeat-factor sampling.
UNIFORM: dict[str, Any] = {"data.sampler": "repeat_factor"}
# Image frequency below which a class is tail (EQL, GOL); the losses' default is that of v1.0.
TAIL_FREQUENCY_V05 = 1.77e-3


def method(loss: str, argument: str = "", *, name: str = "", published: Mapping[str, Any] | None = None) -> Tree:
    """A method of `losses.methods` with Mask R-CNN R50-FPN on LVIS, or with the small detector on glyphs.

    Args:
      loss: as `method` in `lvis`.
      argument: behind the colon of ``--config=FILE:ARGUMENT``. Data "v1" (also "") or "v05", and a preset
        "as_published" (also "") or "uniform", joined by "+" where both are named: "v05+uniform"; or "glyphs" or
        "glyphs_lvis", whose recipe is one for all.
      name: of the experiment, if not the method's.
      published: keys and values in which the method was published with another recipe than the paper's (24 epochs,
        random sampling); for the preset "as_published".

    Raises:
      UserError: an argument that is none of these.
    """
    name = name or loss.rpartition(":")[2]
    if argument in BUILT_IN:
        return BUILT_IN[argument](f"{argument}_{name}", loss)
    parts = [part for part in argument.split("+") if part]
    version = next((part for part in parts if part in LVIS_CLASSES), "v1")
    preset = next((part for part in parts if part in ("as_published", "uniform")), "as_published")
    if not set(parts) <= {version, preset} or len(parts) > 2:
        raise UserError(f"{argument!r}: give glyphs, glyphs_lvis, or v1 or v05, as_published or uniform, joined by +")
    suffix = "_uniform" if preset == "uniform" else ""
    config = lvis(f"maskrcnn_r50_{name}{suffix}", loss, version=version)
    if version == "v05" and "tail_frequency" in method_parameters(loss):
        config.loss.tail_frequency = TAIL_FREQUENCY_V05
    config.update_from_flattened_dict(UNIFORM if preset == "uniform" else published or {})
    return config


def second_stage(
    loss: str,
    data: str = "",
    *,
    name: str = "",
    published: Mapping[str, Any] | None = None,
    trainable: tuple[str, ...],
    reset: tuple[str, ...] = (),
    sampler: str = "random",
    steps: int = 0,
    epochs: int = 12,
    drops: tuple[float, ...],
    base_lr: float = 0.02,
    grad_clip: float = 0.0,
) -> Tree:
    """A method that starts from a trained detector, most of it frozen.

    `config.train.init` has to name the first stage; without it a run is refused, as random weights would be frozen.

    Args:
      loss: as `method` in `lvis`.
      data: "v1" (""), "v05", or "glyphs" or "glyphs_lvis", where training takes 200 steps.
      name: of the experiment, if not the loss's.
      published: as in `method`.
      trainable: patterns of the parameters that train.
      reset: patterns of the parameters that start again.
      sampler: of images.
      steps, epochs: length of the run; positive steps win.
      drops: where the rate drops: steps if `steps` is given, else epochs.
      base_lr: per 16 images.
      grad_clip: largest gradient norm; 0 none.
    """
    config = method(loss, data, name=name, published=published)
    train = config.train
    train.init, train.trainable, train.reset = RANDOM, trainable, reset
    train.base_lr, train.grad_clip = base_lr, grad_clip
    config.data.sampler = sampler
    if data in BUILT_IN:
        train.steps, train.warmup_share = 200, 0.1
    else:
        train.steps, train.epochs = steps, epochs
        train.lr_drops = tuple(drop / (steps or epochs) for drop in drops)
    return config


def load_experiment(argument: str) -> Experiment:
    """The experiment that `config_files.find` finds: ``NAME``, ``FILE.py`` or either with ``:ARGUMENT``.

    Raises:
      UserError: no such file or name, or a wrong value in it.
    """
    path, _, given = config_files.find(argument).partition(":")
    get_config = runpy.run_path(path)["get_config"]
    return parse(get_config(given) if given else get_config())


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts of a command's ``--override``; a value is a Python literal if it reads as one, else text.

    Raises:
      UserError: no ``=``.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--override {text}: write KEY=VALUE, such as train.steps=100")
        try:
            found[key.removeprefix("config.")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key.removeprefix("config.")] = value
    return found


def with_overrides(experiment: Experiment, overrides: Mapping[str, Any]) -> Experiment:
    """The experiment with other values by key. Raises UserError for a key or value that it does not know."""
    try:
        return experiment.changed(overrides)
    except WrongSetting as error:
        raise UserError(f"config {experiment.name}: {error}") from None
