"""RoI heads: extractors, sampling, box head, classifier with its loss, mask head, test settings."""

from collections.abc import Callable, Mapping
from typing import Any

from c2am_jax.interop.mmdetection import parts
from c2am_jax.interop.mmdetection.groups import Group, Notes, Refused
from c2am_jax.wording import noun


def roi_head_rules(head: Group, train: Group, notes: Notes) -> None:
    """RoI head, or all stages of a cascade; `train` are the settings of training."""
    notes.cascade = head.need("type", "StandardRoIHead", "CascadeRoIHead") == "CascadeRoIHead"
    for name, key in (("bbox_roi_extractor", "model.box_head."), ("mask_roi_extractor", "model.mask_head.")):
        _extractor(head.group(name), key, notes)
    boxes, masks, settings = head.groups("bbox_head"), head.groups("mask_head"), train.groups("rcnn")
    if not boxes or not settings:
        raise Refused(f"{head.key('bbox_head')} or {train.key('rcnn')} is missing")
    stages = head.take("num_stages") if notes.cascade else 1
    for name, found in (("bbox_head", boxes), ("mask_head", masks), ("train_cfg.rcnn", settings)):
        if len(found) not in (1, stages):
            raise Refused(f"{head.key(name)}: {len(found)} of them for {stages} {noun(stages, 'stage')}")
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
    layer.need_defaults(sampling_ratio=0, aligned=True, pool_mode="avg")
    notes.found(f"{key}pool_size", layer.take("output_size"), layer.key("output_size"))


def _stage(settings: Group, notes: Notes) -> float:
    """What trains a stage; its IoU."""
    assigner, sampler = parts.matching_of(settings), parts.sampling_of(settings, True)
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
    head.need_defaults(reg_decoded_bbox=False, with_avg_pool=False, norm_cfg=None, conv_cfg=None)
    head.need_defaults(reg_predictor_cfg={"type": "Linear"})
    shared = {
        "model.num_classes": ("num_classes", 80),
        "model.box_head.fc_channels": ("fc_out_channels", 1024),
        "model.box_head.class_agnostic": ("reg_class_agnostic", False),
    }
    for ours, (theirs, default) in shared.items():
        _once(notes, ours, head.take(theirs, default), head.key(theirs))
    inner = Notes()
    parts.smooth_l1_beta(head.group("loss_bbox"), "model.box_head.smooth_l1_beta", inner)
    _once(notes, "model.box_head.smooth_l1_beta", *inner.values["model.box_head.smooth_l1_beta"])
    _classifier(head, notes)
    return parts.box_stds(head.group("bbox_coder"))


def _classifier(head: Group, notes: Notes) -> None:
    """The classifier and its loss: a method with its parameters."""
    predictor, loss = head.group("cls_predictor_cfg"), head.group("loss_cls")
    kind = loss.take("type", "CrossEntropyLoss")
    rule = _LOSSES.get(kind)
    if rule is None:
        raise Refused(f"{loss.key('type')}={kind!r}: known are {', '.join(_LOSSES)}")
    normed = predictor.need("type", "Linear", "NormedLinear", default="Linear") == "NormedLinear"
    loss.need_defaults(loss_weight=1.0, reduction="mean", class_weight=None, ignore_index=None)
    scale = _temperature(predictor) if normed else 0.0
    method, parameters, alone = rule(loss, scale)
    if kind != "CrossEntropyLoss" and normed != alone:
        wanted = "normed" if alone else "linear"
        raise Refused(f"{head.key('cls_predictor_cfg')}: {kind} has a {wanted} classifier here")
    if kind != "EQL":
        loss.need_defaults(num_classes=head.take("num_classes", 80))
    if method == "cosine":
        notes.leave(f"{predictor.path}: the bias of NormedLinear; `cosine` has none, so numbers differ")
    _once(notes, "loss.name", method, loss.key("type"))
    for name, (value, source) in parameters.items():
        _once(notes, f"loss.{name}", value, predictor.key(source) if name in _SCALES else loss.key(source))


_SCALES = ("temperature", "scale")


Rule = tuple[str, dict[str, tuple[Any, str]], bool]  # method, parameters with their source, whether it is normed


def _temperature(predictor: Group) -> float:
    predictor.need_defaults(power=1.0, eps=1e-6, bias=True)
    name = "temperature" if predictor.has("temperature") else "tempearture"  # so spelled in MMDetection
    return float(predictor.take(name, 20.0))


def _cross_entropy(loss: Group, scale: float) -> Rule:
    loss.need_defaults(use_sigmoid=False, avg_non_ignore=False)
    return ("cosine", {"scale": (scale, "tempearture")}, True) if scale else ("softmax", {}, False)


def _numbers(loss: Group, names: Mapping[str, float]) -> dict[str, tuple[Any, str]]:
    return {name: (float(loss.take(name, default)), name) for name, default in names.items()}


def _seesaw(loss: Group, scale: float) -> Rule:
    loss.need_defaults(use_sigmoid=False)
    loss.skip("return_dict")
    parameters = _numbers(loss, {"p": 0.8, "q": 2.0, "eps": 1e-2})
    return "seesaw", {**parameters, "temperature": (scale, "tempearture")}, True


def _eql(loss: Group, scale: float) -> Rule:
    loss.need_defaults(use_sigmoid=True)
    loss.skip("version")
    return "eql", {"tail_frequency": (float(loss.take("lambda_", 1.77e-3)), "lambda_")}, False


def _eql_v2(loss: Group, scale: float) -> Rule:
    loss.need_defaults(use_sigmoid=True, test_with_obj=True)
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
    head.need_defaults(conv_kernel_size=3, norm_cfg=None, conv_cfg=None)
    head.need_defaults(upsample_cfg={"type": "deconv", "scale_factor": 2})
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
        predictor.need_defaults(norm_over_kernel=False)
        _once(notes, "model.mask_head.predictor", "normed", predictor.key("type"))
        _once(notes, "model.mask_head.temperature", _temperature(predictor), predictor.key("tempearture"))
    loss.need_defaults(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0)


def test_rules(rcnn: Group, notes: Notes) -> None:
    """What is kept of a picture's detections."""
    rcnn.need_defaults(mask_thr_binary=0.5)
    parts.copy_values(rcnn, notes, "model.test.", {"score_thr": "score_threshold", "max_per_img": "max_detections"})
    notes.found("model.test.nms_iou", parts.nms_threshold(rcnn), rcnn.key("nms"))
