"""What the values of an MMDetection config mean here: the rules of `interop.import_mmdet_config`.

Each function reads one part of their config, names each value that it finds here, and refuses what this package does
not do. What no rule reads is refused as well where it could change numbers (detector, optimiser, schedule, training
pictures); elsewhere it is listed as left out. Defaults are those of MMDetection 3.3.0.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from c2am_jax.interop.mmdet_config import Unreadable

_ABSENT = object()
DETECTORS = ("MaskRCNN", "CascadeRCNN")
# Data sets by their class and the name of their training json; others are own data.
_DATASETS = {
    ("LVISV1Dataset", "lvis_v1_train.json"): "lvis_v1",
    ("LVISDataset", "lvis_v0.5_train.json"): "lvis_v05",
    ("LVISV05Dataset", "lvis_v0.5_train.json"): "lvis_v05",
    ("CocoDataset", "instances_train2017.json"): "coco",
}
_JSON_DATASETS = {kind for kind, _ in _DATASETS}
_FILES = ("backend_args", "file_client_args", "imdecode_backend", "backend", "color_type")  # how, not what
# Keys of the runner that change no number; other names at the top are variables of the file.
_RUNTIME = (
    "default_hooks",
    "checkpoint_config",
    "log_config",
    "evaluation",
    "val_evaluator",
    "env_cfg",
    "visualizer",
    "log_processor",
    "resume",
    "resume_from",
    "custom_imports",
    "model_wrapper_cfg",
    "tta_model",
)
_HARMLESS_HOOKS = {"NumClassCheckHook", "CheckInvalidLossHook", "MemoryProfilerHook"}


class Refused(Exception):
    """A value that this package has no counterpart for, and that would change numbers."""


@dataclasses.dataclass
class Notes:
    """What became of a config.

    Attributes:
      values: our key -> its value and the key that it comes from.
      left_out: what has no counterpart and changes no number, or that the user has to know.
      refused: what cannot be translated.
      data: "lvis_v1", "lvis_v05", "coco" or "" for other files.
      cascade: several stages.
    """

    values: dict[str, tuple[Any, str]] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    data: str = ""
    cascade: bool = False

    def found(self, key: str, value: Any, source: str) -> None:
        """Our `key` has this value, which theirs of the name `source` gave."""
        self.values[key] = (value, source)

    def leave(self, text: str) -> None:
        """Say what is left out, as ``KEY: WHY``."""
        self.left_out.append(text)


class Group:
    """A dict of their config; it knows which of its keys were read."""

    def __init__(self, values: Mapping[str, Any], path: str):
        self.values, self.path = values, path
        self.read: set[str] = set()
        self.inner: dict[str, list[Group]] = {}

    def key(self, name: str) -> str:
        """The whole name of one of its keys."""
        return f"{self.path}.{name}".lstrip(".")

    def has(self, name: str) -> bool:
        """Whether it is there and not None."""
        return self.values.get(name) is not None

    def take(self, name: str, default: Any = _ABSENT) -> Any:
        """The value of a key. Raises Refused if it needs running, or is missing and has no default."""
        self.read.add(name)
        value = self.values.get(name, default)
        if value is _ABSENT:
            raise Refused(f"{self.key(name)} is missing")
        unreadable = next(_unreadable(value), None)
        if unreadable is not None:
            raise Refused(f"{self.key(name)} needs code to be run: {unreadable}; write its value")
        return value

    def skip(self, *names: str) -> None:
        """Keys that change no number here."""
        self.read |= set(names)

    def need(self, name: str, *allowed: Any, default: Any = _ABSENT) -> Any:
        """The value, which has to be one of those allowed. Raises Refused."""
        value = self.take(name, default)
        if not any(_plain(value) == _plain(one) for one in allowed):
            raise Refused(f"{self.key(name)}={_short(value)} (must be {' or '.join(map(str, allowed))})")
        return value

    def group(self, name: str) -> "Group":
        """The dict of a key; an empty one if it is missing or None. Raises Refused for anything else."""
        found = self.groups(name)
        if len(found) > 1 or isinstance(self.values.get(name), list | tuple):
            raise Refused(f"{self.key(name)}: one dict is expected, not a list")
        return found[0] if found else Group({}, self.key(name))

    def groups(self, name: str) -> list["Group"]:
        """The dicts of a key that holds a list of them, or one."""
        if name not in self.inner:
            value = self.take(name, None) if isinstance(self.values.get(name), Unreadable) else self.values.get(name)
            self.read.add(name)
            listed = isinstance(value, list | tuple)
            entries = list(value) if listed else [] if value is None else [value]
            for entry in entries:
                if not isinstance(entry, Mapping):
                    raise Refused(f"{self.key(name)}={str(entry)}: a dict is expected")
            names = [f"{name}[{i}]" if listed else name for i in range(len(entries))]
            self.inner[name] = [Group(entry, self.key(own)) for own, entry in zip(names, entries, strict=True)]
        return self.inner[name]

    def left(self) -> Iterable[str]:
        """``KEY=VALUE`` of everything that was not read."""
        for name, value in self.values.items():
            if name in self.inner:
                for inner in self.inner[name]:
                    yield from inner.left()
            elif name not in self.read:
                yield f"{self.key(name)}={_short(value)}"


def _unreadable(value: Any) -> Iterator[Unreadable]:
    if isinstance(value, Unreadable):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for entry in inner:
        yield from _unreadable(entry)


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _short(value: Any, most: int = 60) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def translate(config: Mapping[str, Any], gpus: int) -> Notes:
    """All parts of a config that `mmdet_config.read_config` read, for so many GPUs."""
    notes, top = Notes(), Group(config, "")
    parts: list[Callable[[Group, Notes], None]] = [_model, _data, _optimiser, _runtime]
    for part in parts:
        _each(notes, part, top, notes)
    _each(notes, _schedule, top, notes, gpus)
    if not notes.refused:  # else keys that no rule came to would be named too
        _each(notes, _rest_of_data, top, notes)
    return notes


def _each(notes: Notes, part: Callable[..., Any], *arguments: Any) -> Any:
    """Call a part; what it refuses is noted, so that one run tells all."""
    try:
        return part(*arguments)
    except Refused as refused:
        notes.refused.append(str(refused))
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # a text for a number, a number for a list
        where = next((given.path for given in arguments if isinstance(given, Group)), "")
        notes.refused.append(f"{where or 'the config'} has a value of another kind than MMDetection takes: {error}")


def _nothing_left(group: Group, notes: Notes) -> None:
    notes.refused += [f"{left} has no counterpart" for left in group.left()]


# The detector


def _model(top: Group, notes: Notes) -> None:
    model = top.group("model")
    model.need("type", *DETECTORS)
    if not model.has("roi_head") or not model.group("roi_head").has("mask_head"):
        raise Refused(f"{model.path}: it has no roi_head.mask_head; detectors without masks are not in this package")
    train, test = (_settings(top, model, name) for name in ("train_cfg", "test_cfg"))
    before = len(notes.refused)
    _each(notes, _backbone, model, top, notes)
    _each(notes, _neck, model.group("neck"), notes)
    _each(notes, _rpn, model.group("rpn_head"), notes)
    _each(notes, _proposals, train, test, notes)
    _each(notes, _roi_head, model.group("roi_head"), train, notes)
    _each(notes, _test, test.group("rcnn"), notes)
    pixels = model.group("data_preprocessor")
    if not pixels.values and top.has("data_preprocessor"):
        pixels = top.group("data_preprocessor")
    if pixels.values:
        _each(notes, _preprocessor, pixels, notes)
    if len(notes.refused) == before:  # else groups that no rule came to would be named too
        for group in (model, train, test):
            _nothing_left(group, notes)


def _settings(top: Group, model: Group, name: str) -> Group:
    """`train_cfg` and `test_cfg` of the detector; up to MMDetection 2.8 they stand beside it."""
    if model.has(name):
        return model.group(name)
    found = top.values.get(name)
    return top.group(name) if isinstance(found, Mapping) and "rcnn" in found else Group({}, f"model.{name}")


def _backbone(model: Group, top: Group, notes: Notes) -> None:
    backbone = model.group("backbone")
    backbone.need("type", "ResNet")
    depth = backbone.need("depth", 50, 101)
    backbone.need("style", "pytorch", default="pytorch")
    backbone.need("in_channels", 3, default=3)
    backbone.need("num_stages", 4, default=4)
    backbone.need("out_indices", [0, 1, 2, 3], default=(0, 1, 2, 3))
    backbone.need("strides", [1, 2, 2, 2], default=(1, 2, 2, 2))
    backbone.need("dilations", [1, 1, 1, 1], default=(1, 1, 1, 1))
    for name in ("deep_stem", "avg_down"):
        backbone.need(name, False, default=False)
    for name in ("dcn", "plugins", "conv_cfg"):
        backbone.need(name, None, default=None)
    backbone.skip("stage_with_dcn", "zero_init_residual")
    notes.found("model.backbone.depth", depth, backbone.key("depth"))
    notes.found("model.backbone.frozen_stages", backbone.take("frozen_stages", -1), backbone.key("frozen_stages"))
    notes.found("model.backbone.norm", _norm(backbone), backbone.key("norm_cfg"))
    if backbone.take("with_cp", False):
        notes.found("model.backbone.remat", True, backbone.key("with_cp"))
    _initial(model, backbone, top, depth, notes)


def _norm(backbone: Group) -> str:
    norm, fixed = backbone.group("norm_cfg"), backbone.take("norm_eval", True)
    kind = norm.need("type", "BN", "SyncBN", "GN", default="BN")
    norm.need("requires_grad", True, default=True)
    norm.need("eps", 1e-5, default=1e-5)
    if kind == "GN":
        norm.need("num_groups", 32, default=32)
        return "group_norm"
    if fixed:
        return "frozen_bn"
    if kind == "BN":
        raise Refused(f"{backbone.key('norm_eval')}=False with BN: statistics of each GPU alone; here of all (SyncBN)")
    return "sync_bn"


def _initial(model: Group, backbone: Group, top: Group, depth: int, notes: Notes) -> None:
    """`train.init`: weights of the whole detector before those of the backbone."""
    inits = [model.take("pretrained", None)] if model.has("pretrained") else []
    sources = [model.key("pretrained")] * len(inits)
    backbone.skip("pretrained")
    for group in (backbone, model):
        init = group.group("init_cfg")
        if init.values:
            init.need("type", "Pretrained")
            init.need("prefix", None, *(("backbone.",) if group is backbone else ()), default=None)
            init.skip("map_location")
            inits, sources = [init.take("checkpoint")], [init.key("checkpoint")]
    init = inits[0] if inits else "random"
    source = sources[0] if sources else backbone.key("init_cfg")
    if init == f"torchvision://resnet{depth}":
        init = "imagenet"
    elif "://" in init and not init.startswith(("http://", "https://")):
        raise Refused(
            f"{source}={init!r}: known are torchvision://resnet{depth}, a URL and a file; download it and name the file"
        )
    if top.has("load_from"):
        init, source = top.take("load_from"), "load_from"
        notes.found("train.reset_classifier", True, source)
        notes.leave(
            "load_from: rows of classes that file and data share by name are kept, where MMDetection starts the "
            "classifiers new if their number differs"
        )
    notes.found("train.init", init, source)


def _neck(neck: Group, notes: Notes) -> None:
    neck.need("type", "FPN")
    neck.need("in_channels", [256, 512, 1024, 2048])
    neck.need("num_outs", 5)
    neck.need("start_level", 0, default=0)
    neck.need("end_level", -1, default=-1)
    for name in ("add_extra_convs", "relu_before_extra_convs", "no_norm_on_lateral"):
        neck.need(name, False, default=False)
    for name in ("conv_cfg", "act_cfg"):
        neck.need(name, None, default=None)
    neck.need("upsample_cfg", {"mode": "nearest"}, default={"mode": "nearest"})
    notes.found("model.fpn.channels", neck.take("out_channels"), neck.key("out_channels"))
    norm = neck.group("norm_cfg")
    if norm.values:
        norm.need("type", "GN")
        norm.need("num_groups", 32)
        norm.need("requires_grad", True, default=True)
        notes.found("model.fpn.norm", "group_norm", neck.key("norm_cfg"))


def _rpn(head: Group, notes: Notes) -> None:
    channels = notes.values.get("model.fpn.channels", (256,))[0]
    head.need("type", "RPNHead")
    head.need("num_classes", 1, default=1)
    head.need("num_convs", 1, default=1)
    head.need("reg_decoded_bbox", False, default=False)
    for name in ("in_channels", "feat_channels"):
        head.need(name, channels, default=256)
    anchors = head.group("anchor_generator")
    anchors.need("type", "AnchorGenerator")
    anchors.need("center_offset", 0.0, default=0.0)
    if anchors.has("octave_base_scale"):
        anchors.need("scales_per_octave", 1)
        name, scales = "octave_base_scale", [anchors.take("octave_base_scale")]
    else:
        name, scales = "scales", anchors.take("scales")
    if len(scales) != 1:
        raise Refused(f"{anchors.key('scales')}={scales!r}: here an anchor has one scale in each level")
    strides = tuple(anchors.take("strides"))
    anchors.need("base_sizes", None, strides, default=None)
    notes.found("model.rpn.anchor_scale", float(scales[0]), anchors.key(name))
    notes.found("model.rpn.anchor_ratios", tuple(map(float, anchors.take("ratios"))), anchors.key("ratios"))
    notes.found("model.rpn.strides", strides, anchors.key("strides"))
    if _stds(head.group("bbox_coder")) != (1.0, 1.0, 1.0, 1.0):
        raise Refused(f"{head.key('bbox_coder.target_stds')}: here they are 1.0")
    loss = head.group("loss_cls")
    loss.need("type", "CrossEntropyLoss")
    loss.need("use_sigmoid", True)
    loss.need("loss_weight", 1.0, default=1.0)
    _smooth_l1(head.group("loss_bbox"), "model.rpn.smooth_l1_beta", notes)


def _stds(coder: Group) -> tuple[float, ...]:
    coder.need("type", "DeltaXYWHBBoxCoder", default="DeltaXYWHBBoxCoder")
    coder.need("target_means", [0.0] * 4, default=(0.0,) * 4)
    coder.need("clip_border", True, default=True)
    coder.need("add_ctr_clamp", False, default=False)
    return tuple(map(float, coder.take("target_stds", (1.0,) * 4)))


def _smooth_l1(loss: Group, key: str, notes: Notes) -> None:
    kind = loss.need("type", "L1Loss", "SmoothL1Loss", default="SmoothL1Loss")
    loss.need("loss_weight", 1.0, default=1.0)
    beta = 0.0 if kind == "L1Loss" else float(loss.take("beta", 1.0))
    notes.found(key, beta, loss.key("type" if kind == "L1Loss" else "beta"))


def _matching(settings: Group) -> Group:
    """The assigner of a stage, with what no setting changes here."""
    settings.need("pos_weight", -1, default=-1)
    settings.skip("debug")
    assigner = settings.group("assigner")
    assigner.need("type", "MaxIoUAssigner")
    assigner.need("ignore_iof_thr", -1, default=-1)
    assigner.need("gt_max_assign_all", True, default=True)
    assigner.skip("gpu_assign_thr", "ignore_wrt_candidates")
    assigner.need("iou_calculator", {"type": "BboxOverlaps2D"}, None, default=None)
    return assigner


def _sampling(settings: Group, adds_truth: bool) -> Group:
    sampler = settings.group("sampler")
    sampler.need("type", "RandomSampler")
    sampler.need("neg_pos_ub", -1, default=-1)
    sampler.need("add_gt_as_proposals", adds_truth, default=True)
    return sampler


def _copy(group: Group, notes: Notes, prefix: str, names: Mapping[str, str]) -> None:
    """Numbers that have another name here: {theirs: ours}."""
    for theirs, ours in names.items():
        notes.found(f"{prefix}{ours}", group.take(theirs), group.key(theirs))


def _proposals(train: Group, test: Group, notes: Notes) -> None:
    rpn = train.group("rpn")
    assigner = _matching(rpn)
    assigner.need("match_low_quality", True, default=True)
    names = {"pos_iou_thr": "positive_iou", "neg_iou_thr": "negative_iou"}
    _copy(assigner, notes, "model.rpn.", {**names, "min_pos_iou": "min_positive_iou"})
    _copy(_sampling(rpn, False), notes, "model.rpn.", {"num": "samples", "pos_fraction": "positive_fraction"})
    _copy(rpn, notes, "model.rpn.", {"allowed_border": "allowed_border"})
    limits = {}
    for group, split in ((train.group("rpn_proposal"), "train"), (test.group("rpn"), "test")):
        group.need("min_bbox_size", 0, default=0)
        group.need("nms_across_levels", False, default=False)
        group.skip("nms_post")
        most = "max_num" if group.has("max_num") else "max_per_img"
        _copy(group, notes, "model.rpn.", {"nms_pre": f"pre_nms_{split}", most: f"post_nms_{split}"})
        limits[split] = _nms(group), group.key("nms")
    if limits["train"][0] != limits["test"][0]:
        raise Refused(f"{limits['test'][1]}: another IoU than in training ({limits['train'][0]}); here it is one")
    notes.found("model.rpn.nms_iou", *limits["train"])


def _nms(group: Group) -> float:
    if group.has("nms_thr"):  # up to MMDetection 2.4
        return float(group.take("nms_thr"))
    nms = group.group("nms")
    nms.need("type", "nms", default="nms")
    nms.need("class_agnostic", False, default=False)
    nms.need("max_num", -1, default=-1)
    nms.skip("split_thr")
    return float(nms.take("iou_thr" if nms.has("iou_thr") else "iou_threshold"))


def _roi_head(head: Group, train: Group, notes: Notes) -> None:
    notes.cascade = head.need("type", "StandardRoIHead", "CascadeRoIHead") == "CascadeRoIHead"
    for name, key in (("bbox_roi_extractor", "model.box_head."), ("mask_roi_extractor", "model.mask_head.")):
        _extractor(head.group(name), key, notes)
    boxes, masks, settings = head.groups("bbox_head"), head.groups("mask_head"), train.groups("rcnn")
    if not boxes or not settings:
        raise Refused(f"{head.key('bbox_head')} or {train.key('rcnn')} is missing")
    stages = head.take("num_stages") if notes.cascade else 1
    for name, found in (("bbox_head", boxes), ("mask_head", masks), ("train_cfg.rcnn", settings)):
        if len(found) not in (1, stages):
            raise Refused(f"{head.key(name)}: {len(found)} of them for {stages} stages")
    ious = [_stage(group, notes) for group in settings]
    stds = [_box_head(group, notes) for group in boxes]
    for mask in masks:
        _mask_head(mask, notes)
    if not notes.cascade:
        notes.found("model.box_head.positive_iou", ious[0], settings[0].key("assigner.pos_iou_thr"))
        notes.found("model.box_head.delta_stds", stds[0], boxes[0].key("bbox_coder.target_stds"))
        return
    ious, stds = ([*found, *found[:1] * (stages - len(found))] for found in (ious, stds))
    notes.found("model.cascade.positive_ious", tuple(ious), f"{train.key('rcnn')}[..].assigner.pos_iou_thr")
    notes.found("model.cascade.delta_stds", tuple(stds), f"{head.key('bbox_head')}[..].bbox_coder.target_stds")
    weights = tuple(map(float, head.take("stage_loss_weights")))
    notes.found("model.cascade.loss_weights", weights, head.key("stage_loss_weights"))


def _once(notes: Notes, key: str, value: Any, source: str) -> None:
    """A value that all stages share. Raises Refused if they do not."""
    before = notes.values.get(key)
    if before and before[0] != value:
        raise Refused(f"{source}={value!r}, but {before[1]}={before[0]!r}: here it is one for all stages")
    if not before:
        notes.found(key, value, source)


def _extractor(extractor: Group, key: str, notes: Notes) -> None:
    extractor.need("type", "SingleRoIExtractor")
    strides = notes.values.get("model.rpn.strides", ((4, 8, 16, 32, 64),))[0]
    extractor.need("featmap_strides", strides[:4])
    extractor.need("out_channels", notes.values.get("model.fpn.channels", (256,))[0])
    _once(notes, "model.box_head.finest_scale", extractor.take("finest_scale", 56), extractor.key("finest_scale"))
    layer = extractor.group("roi_layer")
    layer.need("type", "RoIAlign")
    layer.need("sampling_ratio", 0, default=0)
    layer.need("aligned", True, default=True)
    layer.need("pool_mode", "avg", default="avg")
    notes.found(f"{key}pool_size", layer.take("output_size"), layer.key("output_size"))


def _stage(settings: Group, notes: Notes) -> float:
    """What trains a stage; its IoU."""
    assigner, sampler = _matching(settings), _sampling(settings, True)
    iou = assigner.take("pos_iou_thr")
    for name in ("neg_iou_thr", "min_pos_iou"):
        assigner.need(name, iou, default=0.0)
    head, low = "model.box_head.", "match_low_quality"
    _once(notes, f"{head}match_low_quality", assigner.take(low, True), assigner.key(low))
    _once(notes, f"{head}samples", sampler.take("num"), sampler.key("num"))
    _once(notes, f"{head}positive_fraction", sampler.take("pos_fraction"), sampler.key("pos_fraction"))
    settings.need("mask_size", 28, [28, 28], default=28)
    return iou


def _box_head(head: Group, notes: Notes) -> tuple[float, ...]:
    """A stage's box head; the deviations of its coder."""
    head.need("type", "Shared2FCBBoxHead")
    head.need("in_channels", notes.values.get("model.fpn.channels", (256,))[0], default=256)
    head.need("roi_feat_size", notes.values["model.box_head.pool_size"][0], default=7)
    head.need("reg_decoded_bbox", False, default=False)
    head.need("with_avg_pool", False, default=False)
    head.need("norm_cfg", None, default=None)
    head.need("conv_cfg", None, default=None)
    head.need("reg_predictor_cfg", {"type": "Linear"}, default={"type": "Linear"})
    shared = {
        "model.num_classes": ("num_classes", 80),
        "model.box_head.fc_channels": ("fc_out_channels", 1024),
        "model.box_head.class_agnostic": ("reg_class_agnostic", False),
    }
    for ours, (theirs, default) in shared.items():
        _once(notes, ours, head.take(theirs, default), head.key(theirs))
    inner = Notes()
    _smooth_l1(head.group("loss_bbox"), "model.box_head.smooth_l1_beta", inner)
    _once(notes, "model.box_head.smooth_l1_beta", *inner.values["model.box_head.smooth_l1_beta"])
    _classifier(head, notes)
    return _stds(head.group("bbox_coder"))


def _classifier(head: Group, notes: Notes) -> None:
    """The classifier and its loss: a method with its parameters."""
    predictor, loss = head.group("cls_predictor_cfg"), head.group("loss_cls")
    kind = loss.take("type", "CrossEntropyLoss")
    rule = _LOSSES.get(kind)
    if rule is None:
        raise Refused(f"{loss.key('type')}={kind!r}: known are {', '.join(_LOSSES)}")
    normed = predictor.need("type", "Linear", "NormedLinear", default="Linear") == "NormedLinear"
    loss.need("loss_weight", 1.0, default=1.0)
    loss.need("reduction", "mean", default="mean")
    for name in ("class_weight", "ignore_index"):
        loss.need(name, None, default=None)
    scale = _temperature(predictor) if normed else 0.0
    method, parameters, alone = rule(loss, scale)
    if kind != "CrossEntropyLoss" and normed != alone:
        raise Refused(
            f"{head.key('cls_predictor_cfg')}: {kind} has a {'normed' if alone else 'linear'} classifier here"
        )
    if kind != "EQL":
        loss.need("num_classes", head.take("num_classes", 80), default=head.take("num_classes", 80))
    if method == "cosine":
        notes.leave(f"{predictor.path}: the bias of NormedLinear; `cosine` has none, so numbers differ")
    _once(notes, "loss.name", method, loss.key("type"))
    for name, (value, source) in parameters.items():
        _once(notes, f"loss.{name}", value, predictor.key(source) if name in _SCALES else loss.key(source))


_SCALES = ("temperature", "scale")
Rule = tuple[str, dict[str, tuple[Any, str]], bool]  # method, parameters with their source, whether it is normed


def _temperature(predictor: Group) -> float:
    predictor.need("power", 1.0, default=1.0)
    predictor.need("eps", 1e-6, default=1e-6)
    predictor.need("bias", True, default=True)
    name = "temperature" if predictor.has("temperature") else "tempearture"  # so spelled in MMDetection
    return float(predictor.take(name, 20.0))


def _cross_entropy(loss: Group, scale: float) -> Rule:
    loss.need("use_sigmoid", False, default=False)
    loss.need("avg_non_ignore", False, default=False)
    return ("cosine", {"scale": (scale, "tempearture")}, True) if scale else ("softmax", {}, False)


def _numbers(loss: Group, names: Mapping[str, float]) -> dict[str, tuple[Any, str]]:
    return {name: (float(loss.take(name, default)), name) for name, default in names.items()}


def _seesaw(loss: Group, scale: float) -> Rule:
    loss.need("use_sigmoid", False, default=False)
    loss.skip("return_dict")
    parameters = _numbers(loss, {"p": 0.8, "q": 2.0, "eps": 1e-2})
    return "seesaw", {**parameters, "temperature": (scale, "tempearture")}, True


def _eql(loss: Group, scale: float) -> Rule:
    loss.need("use_sigmoid", True, default=True)
    loss.skip("version")
    return "eql", {"tail_frequency": (float(loss.take("lambda_", 1.77e-3)), "lambda_")}, False


def _eql_v2(loss: Group, scale: float) -> Rule:
    loss.need("use_sigmoid", True, default=True)
    loss.need("test_with_obj", True, default=True)
    loss.skip("vis_grad", "use_distributed")
    return "eql_v2", _numbers(loss, {"gamma": 12.0, "mu": 0.8, "alpha": 4.0}), False


# MMDetection's, and those of the authors' branches of it.
_LOSSES: dict[str, Callable[[Group, float], Rule]] = {
    "CrossEntropyLoss": _cross_entropy,
    "SeesawLoss": _seesaw,
    "EQL": _eql,
    "EQLv2": _eql_v2,
    "EQLV2Loss": _eql_v2,
}


def _mask_head(head: Group, notes: Notes) -> None:
    head.need("type", "FCNMaskHead")
    head.need("in_channels", notes.values.get("model.fpn.channels", (256,))[0], default=256)
    head.need("roi_feat_size", notes.values["model.mask_head.pool_size"][0], default=14)
    head.need("conv_kernel_size", 3, default=3)
    for name in ("norm_cfg", "conv_cfg"):
        head.need(name, None, default=None)
    head.need("upsample_cfg", {"type": "deconv", "scale_factor": 2}, default={"type": "deconv", "scale_factor": 2})
    shared = {
        "model.num_classes": ("num_classes", 80),
        "model.mask_head.convs": ("num_convs", 4),
        "model.mask_head.channels": ("conv_out_channels", 256),
        "model.mask_head.class_agnostic": ("class_agnostic", False),
    }
    for ours, (theirs, default) in shared.items():
        _once(notes, ours, head.take(theirs, default), head.key(theirs))
    predictor, loss = head.group("predictor_cfg"), head.group("loss_mask")
    if predictor.need("type", "Conv", "NormedConv2d", default="Conv") == "NormedConv2d":
        predictor.need("norm_over_kernel", False, default=False)
        _once(notes, "model.mask_head.predictor", "normed", predictor.key("type"))
        _once(notes, "model.mask_head.temperature", _temperature(predictor), predictor.key("tempearture"))
    loss.need("type", "CrossEntropyLoss", default="CrossEntropyLoss")
    loss.need("use_mask", True, default=True)
    loss.need("loss_weight", 1.0, default=1.0)


def _test(rcnn: Group, notes: Notes) -> None:
    rcnn.need("mask_thr_binary", 0.5, default=0.5)
    _copy(rcnn, notes, "model.test.", {"score_thr": "score_threshold", "max_per_img": "max_detections"})
    notes.found("model.test.nms_iou", _nms(rcnn), rcnn.key("nms"))


def _preprocessor(pixels: Group, notes: Notes) -> None:
    pixels.need("type", "DetDataPreprocessor", default="DetDataPreprocessor")
    pixels.need("bgr_to_rgb", True, default=False)
    pixels.need("rgb_to_bgr", False, default=False)
    pixels.need("pad_size_divisor", 32, default=1)
    pixels.need("batch_augments", None, default=None)
    pixels.skip("pad_mask", "mask_pad_value", "pad_value", "non_blocking", "pad_seg", "seg_pad_value", "boxtype2tensor")
    _pixels(pixels, notes)


def _pixels(group: Group, notes: Notes) -> None:
    for name in ("mean", "std"):
        notes.found(f"data.{name}", tuple(map(float, group.take(name))), group.key(name))


# Pictures


def _data(top: Group, notes: Notes) -> None:
    new, loader = _loader(top)
    dataset = _unwrapped(loader.group("dataset" if new else "train"), notes)
    validation = top.group("val_dataloader").group("dataset") if new else loader.group("val")
    if new:
        _each(notes, _sampler, loader, notes)
    _each(notes, _files, dataset, validation, notes)
    _each(notes, _training_pictures, dataset, notes)
    _each(notes, _test_pictures, validation, notes)
    _each(notes, _shapes, notes)


def _loader(top: Group) -> tuple[bool, Group]:
    """Whether the config is of 3.x, and what loads its training pictures."""
    new = top.has("train_dataloader")
    if not new and not top.has("data"):
        raise Refused("the config has neither train_dataloader (3.x) nor data (2.x)")
    return new, top.group("train_dataloader" if new else "data")


def _rest_of_data(top: Group, notes: Notes) -> None:
    _, loader = _loader(top)
    loader.skip(
        "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "drop_last", "timeout", "collate_fn"
    )
    loader.skip("workers_per_gpu", "test", "train_dataloader", "val_dataloader", "test_dataloader")
    loader.inner.pop("val", None)  # of 2.x, read for its pictures alone
    _nothing_left(loader, notes)


def _unwrapped(dataset: Group, notes: Notes) -> Group:
    """The data set behind its wrappers, which become sampler and length."""
    times = 1
    notes.found("data.sampler", "random", dataset.key("type"))
    while dataset.has("dataset"):
        kind = dataset.need("type", "ClassBalancedDataset", "RepeatDataset")
        if kind == "RepeatDataset":
            times *= dataset.take("times")
        else:
            dataset.need("filter_empty_gt", True, default=True)
            notes.found("data.sampler", "repeat_factor", dataset.key("type"))
            notes.found("data.repeat_threshold", dataset.take("oversample_thr"), dataset.key("oversample_thr"))
        dataset = dataset.group("dataset")
    notes.found("times", times, dataset.path)
    return dataset


def _sampler(loader: Group, notes: Notes) -> None:
    sampler = loader.group("sampler")
    kind = sampler.need("type", "DefaultSampler", "InfiniteSampler", "ClassAwareSampler", default="DefaultSampler")
    sampler.need("shuffle", True, default=True)
    sampler.skip("seed", "round_up")
    if kind == "ClassAwareSampler":
        sampler.need("num_sample_class", 1, default=1)
        notes.found("data.sampler", "class_aware", sampler.key("type"))
    batches = loader.group("batch_sampler")
    if batches.values:
        batches.need("type", "AspectRatioBatchSampler")


def _files(dataset: Group, validation: Group, notes: Notes) -> None:
    kind = dataset.need("type", *sorted(_JSON_DATASETS))
    dataset.skip(
        "pipeline", "backend_args", "file_client_args", "test_mode", "data_root", "lazy_init", "serialize_data"
    )
    dataset.need("filter_empty_gt", True, default=True)
    rules = dataset.group("filter_cfg")
    rules.need("filter_empty_gt", True, default=True)
    rules.need("min_size", 32, default=32)
    dataset.need("proposal_file", None, "", default=None)
    dataset.need("seg_prefix", None, default=None)
    classes = [name for name in ("metainfo", "classes") if dataset.has(name)]
    dataset.skip("metainfo", "classes")
    annotations, images = _paths(dataset)
    name = "" if classes else _DATASETS.get((kind, PurePosixPath(annotations).name), "")
    notes.data = name
    if name:
        notes.found("data.name", name, dataset.key("type"))
        notes.leave(f"{dataset.key('ann_file')}={annotations}: files are looked for in data/{name} (docs/data.md)")
    else:
        values = (annotations, images, *_paths(validation))
        keys = ("annotations", "images", "val_annotations", "val_images")
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            group = validation if i > 1 else dataset
            notes.found(f"data.{key}", value, group.key("img_prefix or data_prefix" if i % 2 else "ann_file"))
        notes.left_out += [f"{dataset.key(one)}: classes are those of the json, in the order of ids" for one in classes]


def _paths(dataset: Group) -> tuple[str, str]:
    """Annotation json and folder of pictures."""
    root = dataset.take("data_root", None) or ""
    prefix = dataset.take("data_prefix", None) or {}
    images = prefix.get("img", "") if isinstance(prefix, Mapping) else str(prefix)
    images = dataset.take("img_prefix", None) or images
    return _under(root, dataset.take("ann_file")), _under(root, images)


def _under(root: str, path: str) -> str:
    return str(PurePosixPath(root) / path) if root or path else ""


def _transforms(dataset: Group, where: str) -> list[Group]:
    transforms = dataset.groups("pipeline")
    if not transforms:
        raise Refused(f"{dataset.key('pipeline')} is missing ({where})")
    return transforms


def _training_pictures(dataset: Group, notes: Notes) -> None:
    notes.found("data.flip_probability", 0.0, dataset.key("pipeline"))
    sizes = 0
    before = len(notes.refused)
    for transform in _transforms(dataset, "training"):
        kind = transform.take("type")
        if kind in _SIZES:
            sizes += 1
            _each(notes, _SIZES[kind], transform, notes)
        elif kind in _OTHERS:
            _each(notes, _OTHERS[kind], transform, notes)
        else:
            notes.refused.append(f"{transform.key('type')}={kind!r}: no such change of pictures here")
            continue
        transform.skip(*_FILES)
        if len(notes.refused) == before:
            _nothing_left(transform, notes)
    if sizes != 1 and len(notes.refused) == before:
        raise Refused(f"{dataset.key('pipeline')}: {sizes} resizings; here it is one")


def _sides(scales: Sequence[Any], source: str) -> tuple[list[int], int]:
    """Short sides and the limit of the long one, of pairs in either order."""
    pairs = [sorted(scale) for scale in scales if isinstance(scale, list | tuple) and len(scale) == 2]
    if len(pairs) != len(scales) or len({long for _, long in pairs}) != 1:
        raise Refused(f"{source}={_short(scales)}: pairs of a short side and one limit of the long side are expected")
    return sorted({short for short, _ in pairs}), pairs[0][1]


def _listed(scale: Any) -> list[Any]:
    return list(scale) if scale and isinstance(scale[0], list | tuple) else [scale]


def _resized(transform: Group, name: str, between: bool, notes: Notes) -> None:
    scales = _listed(transform.take(name))
    shorts, long = _sides(scales, transform.key(name))
    if between and len(shorts) > 1:
        shorts = list(range(shorts[0], shorts[-1] + 1))
    notes.found("data.short_sides", tuple(shorts), transform.key(name))
    notes.found("data.max_side", long, transform.key(name))


def _resize(transform: Group, notes: Notes) -> None:
    old = transform.has("img_scale")
    transform.need("keep_ratio", True, default=old)
    transform.need("ratio_range", None, default=None)
    transform.need("bbox_clip_border", True, default=True)
    transform.need("clip_object_border", True, default=True)
    transform.need("interpolation", "bilinear", default="bilinear")
    mode = transform.need("multiscale_mode", "range", "value", default="range")
    transform.skip("override")
    _resized(transform, "img_scale" if old else "scale", mode == "range", notes)


def _choice_resize(transform: Group, notes: Notes) -> None:
    transform.need("keep_ratio", True, default=False)
    transform.need("resize_type", "Resize", default="Resize")
    _resized(transform, "scales", False, notes)


def _random_resize(transform: Group, notes: Notes) -> None:
    transform.need("keep_ratio", True, default=False)
    transform.need("ratio_range", None, default=None)
    transform.need("resize_type", "Resize", default="Resize")
    _resized(transform, "scale", True, notes)


def _flip(transform: Group, notes: Notes) -> None:
    transform.need("direction", "horizontal", default="horizontal")
    name = "flip_ratio" if transform.has("flip_ratio") else "prob"
    notes.found("data.flip_probability", float(transform.take(name)), transform.key(name))


def _normalize(transform: Group, notes: Notes) -> None:
    transform.need("to_rgb", True, default=True)
    _pixels(transform, notes)


def _pad(transform: Group, notes: Notes) -> None:
    transform.need("size_divisor", 32)
    transform.skip("pad_val")


def _load(transform: Group, notes: Notes) -> None:
    transform.skip("to_float32", "ignore_empty")
    decoder = transform.take("imdecode_backend", "cv2")
    if decoder != "cv2":
        notes.leave(f"{transform.key('imdecode_backend')}={decoder}: pictures are read and resized as OpenCV does")


def _annotations(transform: Group, notes: Notes) -> None:
    transform.need("with_bbox", True, default=True)
    transform.need("with_mask", True)
    if not transform.take("poly2mask", True):
        notes.leave(f"{transform.key('poly2mask')}=False: masks are kept as 112x112 points of their boxes")


def _packed(transform: Group, notes: Notes) -> None:
    transform.skip("keys", "meta_keys")


_SIZES = {"Resize": _resize, "RandomChoiceResize": _choice_resize, "RandomResize": _random_resize}
_OTHERS = {
    "RandomFlip": _flip,
    "Normalize": _normalize,
    "Pad": _pad,
    "LoadImageFromFile": _load,
    "LoadAnnotations": _annotations,
    "DefaultFormatBundle": _packed,
    "Collect": _packed,
    "PackDetInputs": _packed,
}


def _test_pictures(dataset: Group, notes: Notes) -> None:
    transforms = _transforms(dataset, "validation")
    many = [transform for transform in transforms if transform.values.get("type") == "MultiScaleFlipAug"]
    if many:
        many[0].need("flip", False, default=False)
        scale, source = many[0].take("img_scale"), many[0].key("img_scale")
    else:
        resize = [transform for transform in transforms if transform.values.get("type") == "Resize"]
        if len(resize) != 1:
            raise Refused(f"{dataset.key('pipeline')}: {len(resize)} Resize for validation; here it is one")
        resize[0].need("keep_ratio", True, default=False)
        scale, source = resize[0].take("scale"), resize[0].key("scale")
    shorts, long = _sides(_listed(scale), source)
    if len(shorts) > 1:
        raise Refused(f"{source}={scale}: here validation has one size")
    if "data.max_side" in notes.values and notes.values["data.max_side"][0] != long:
        raise Refused(f"{source}={scale}: the limit of the long side is {notes.values['data.max_side'][0]} in training")
    notes.found("data.test_short_side", shorts[0], source)


def _shapes(notes: Notes) -> None:
    """Padded shapes for the sizes, as for the defaults of 800 and 1333: 1.36 times as long and as long as allowed."""
    if not {"data.short_sides", "data.test_short_side", "data.max_side"} <= notes.values.keys():
        return
    sides, source = notes.values["data.short_sides"]
    top, longest = max(*sides, notes.values["data.test_short_side"][0]), notes.values["data.max_side"][0]
    short, wide, long = (-int(-side // 32) * 32 for side in (top, 1.36 * top, longest))
    lengths = (wide, long) if wide < long else (max(short, long),)
    shapes = [shape for length in lengths for shape in ((short, length), (length, short))]
    notes.found("data.buckets", tuple(dict.fromkeys(shapes)), source)


# Optimiser and schedule


def _optimiser(top: Group, notes: Notes) -> None:
    wrapper = top.group("optim_wrapper")
    optimizer = wrapper.group("optimizer") if wrapper.values else top.group("optimizer")
    if wrapper.values:
        kind = wrapper.need("type", "OptimWrapper", "AmpOptimWrapper", default="OptimWrapper")
        wrapper.need("accumulative_counts", 1, default=1)
        wrapper.need("paramwise_cfg", None, {}, default=None)
        wrapper.skip("loss_scale", "dtype")
        if kind == "AmpOptimWrapper":
            _half(wrapper.key("type"), notes)
        clip = wrapper.group("clip_grad")
    else:
        options = top.group("optimizer_config")
        options.skip("type", "loss_scale", "distributed")
        clip = options.group("grad_clip")
        _nothing_left(options, notes)
    if top.has("fp16"):
        top.skip("fp16")
        _half("fp16", notes)
    optimizer.need("type", "SGD")
    optimizer.need("nesterov", False, default=False)
    optimizer.need("dampening", 0, default=0)
    optimizer.need("paramwise_cfg", None, {}, default=None)
    names = {"momentum": "momentum", "weight_decay": "weight_decay"}
    for theirs, ours in names.items():
        notes.found(f"train.{ours}", float(optimizer.take(theirs, 0.0)), optimizer.key(theirs))
    notes.found("lr", optimizer.take("lr"), optimizer.key("lr"))
    if clip.values:
        clip.need("norm_type", 2, default=2)
        notes.found("train.grad_clip", float(clip.take("max_norm")), clip.key("max_norm"))
    for group in (wrapper, optimizer):
        _nothing_left(group, notes)


def _half(source: str, notes: Notes) -> None:
    notes.leave(f"{source}: float16; computed in float32 here, --config.train.compute_dtype=bfloat16 is nearest to it")


def _schedule(top: Group, notes: Notes, gpus: int) -> None:
    new, loader = _loader(top)
    name = "batch_size" if new else "samples_per_gpu"
    each = loader.take("imgs_per_gpu" if loader.has("imgs_per_gpu") else name)
    batch = each * gpus
    notes.found("train.batch_size", batch, f"{loader.key(name)} x {gpus} GPUs (--gpus)")
    if "lr" in notes.values:
        rate, source = notes.values.pop("lr")
        scaling = top.group("auto_scale_lr")
        base = scaling.take("base_batch_size", 16) if scaling.take("enable", False) else batch
        text = f"{source}={rate} of {base} pictures, here of 16"
        notes.found("train.base_lr", rate * 16 / base, text)
    times = notes.values.pop("times", (1, ""))[0]
    length = _length(top, times, notes)
    if new:
        _rates(top.groups("param_scheduler"), length, notes)
    else:
        _lr_config(top.group("lr_config"), length, notes)


@dataclasses.dataclass(frozen=True)
class _Length:
    """How long their run is: in epochs of theirs or, if `by_steps`, in steps."""

    number: int
    by_steps: bool


def _length(top: Group, times: int, notes: Notes) -> _Length:
    loop = top.group("train_cfg") if top.has("train_dataloader") else top.group("runner")
    if not loop.values and top.has("total_epochs"):
        loop = Group({"type": "EpochBasedRunner", "max_epochs": top.take("total_epochs")}, "")
    kinds = ("EpochBasedTrainLoop", "IterBasedTrainLoop", "EpochBasedRunner", "IterBasedRunner")
    default = "EpochBasedTrainLoop" if loop.values.get("by_epoch", True) else "IterBasedTrainLoop"
    by_steps = loop.need("type", *kinds, default=default).startswith("Iter")
    loop.skip("by_epoch", "val_interval", "val_begin")
    loop.need("dynamic_intervals", None, default=None)
    name = "max_iters" if by_steps else "max_epochs"
    number = loop.take(name)
    if by_steps:
        notes.found("train.steps", number, loop.key(name))
    else:
        source = f"{loop.key(name)}={number}, each picture {times} times" if times > 1 else loop.key(name)
        notes.found("train.epochs", number * times, source)
    notes.leave("evaluation: once, at the end; --config.train.eval_every=STEPS for more")
    _nothing_left(loop, notes)
    return _Length(number, by_steps)


def _drops(steps: Sequence[int], by_steps: bool, length: _Length, source: str, notes: Notes) -> None:
    """Where the rate drops. Raises Refused for a place in other units than the run's length."""
    if by_steps != length.by_steps:
        raise Refused(f"{source}: in {'steps' if by_steps else 'epochs'}, but the length of the run is not")
    inside = [step for step in steps if step < length.number]
    if inside != list(steps):
        notes.leave(f"{source}={list(steps)}: what lies behind the end of the run")
    if by_steps and inside:
        notes.values.pop("train.lr_drops", None)
        notes.found("train.lr_steps", tuple(inside), source)
    else:
        notes.found("train.lr_drops", tuple(step / length.number for step in inside), source)


def _rates(schedulers: list[Group], length: _Length, notes: Notes) -> None:
    for key, value in (("train.warmup_steps", 0), ("train.lr_drops", ())):
        notes.found(key, value, "param_scheduler")
    for scheduler in schedulers:
        kind = scheduler.need("type", "LinearLR", "MultiStepLR")
        begin, end = scheduler.need("begin", 0, default=0), scheduler.take("end", None)
        scheduler.skip("verbose", "convert_to_iter_based")
        if kind == "LinearLR":
            scheduler.need("by_epoch", False, default=True)
            scheduler.need("end_factor", 1.0, default=1.0)
            notes.found("train.warmup_steps", end - begin if end else 5, scheduler.key("end"))
            factor = float(scheduler.take("start_factor", 1 / 3))
            notes.found("train.warmup_factor", factor, scheduler.key("start_factor"))
        else:
            source, steps = scheduler.key("milestones"), list(scheduler.take("milestones"))
            reached = [step for step in steps if end is None or step < end]
            if reached != steps:
                notes.leave(f"{source}={steps}: MMDetection stops this schedule at its end={end}, so here too")
            _drops(reached, not scheduler.take("by_epoch", True), length, source, notes)
            notes.found("train.lr_gamma", float(scheduler.take("gamma", 0.1)), scheduler.key("gamma"))
        _nothing_left(scheduler, notes)


def _lr_config(config: Group, length: _Length, notes: Notes) -> None:
    config.need("policy", "step", "Step")
    steps = config.take("step")
    by_steps = not config.take("by_epoch", not length.by_steps)
    _drops(list(steps), by_steps, length, config.key("step"), notes)
    notes.found("train.lr_gamma", float(config.take("gamma", 0.1)), config.key("gamma"))
    config.need("min_lr", None, default=None)
    if config.need("warmup", "linear", None, default=None):
        config.need("warmup_by_epoch", False, default=False)
        _copy(config, notes, "train.", {"warmup_iters": "warmup_steps", "warmup_ratio": "warmup_factor"})
    else:
        config.skip("warmup_iters", "warmup_ratio")
        notes.found("train.warmup_steps", 0, config.key("warmup"))
    _nothing_left(config, notes)


# The rest


def _runtime(top: Group, notes: Notes) -> None:
    for hook in top.groups("custom_hooks"):
        kind = hook.take("type", "")
        if kind not in _HARMLESS_HOOKS:
            notes.refused.append(f"{hook.path}: {kind} is code of MMDetection or yours; it is not run here")
    seed = top.values.get("seed") if top.has("seed") else top.group("randomness").values.get("seed")
    if isinstance(seed, int):
        notes.found("train.seed", seed, "seed" if top.has("seed") else "randomness.seed")
    for name in _RUNTIME:
        value = top.values.get(name)
        if value:
            inside = ", ".join(map(str, value)) if isinstance(value, Mapping) else _short(value)
            notes.leave(f"{name}: {inside}")
