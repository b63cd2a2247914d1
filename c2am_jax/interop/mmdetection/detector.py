"""The detector: backbone, neck, RPN, proposals; its RoI heads are in `heads`."""

from collections.abc import Mapping

from c2am_jax.interop.mmdetection import parts
from c2am_jax.interop.mmdetection.groups import Group, Notes, Refused, attempt, nothing_left
from c2am_jax.interop.mmdetection.heads import roi_head_rules, test_rules
from c2am_jax.interop.mmdetection.pictures import preprocessor_rules

DETECTORS = ("MaskRCNN", "CascadeRCNN")


def model_rules(top: Group, notes: Notes) -> None:
    """The detector with its settings of training and test."""
    model = top.group("model")
    model.need("type", *DETECTORS)
    if not model.has("roi_head") or not model.group("roi_head").has("mask_head"):
        raise Refused(f"{model.path}: it has no roi_head.mask_head; detectors without masks are not in this package")
    train, test = (_settings(top, model, name) for name in ("train_cfg", "test_cfg"))
    before = len(notes.refused)
    attempt(notes, _backbone, model, top, notes)
    attempt(notes, _neck, model.group("neck"), notes)
    attempt(notes, _rpn, model.group("rpn_head"), notes)
    attempt(notes, _proposals, train, test, notes)
    attempt(notes, roi_head_rules, model.group("roi_head"), train, notes)
    attempt(notes, test_rules, test.group("rcnn"), notes)
    pixels = model.group("data_preprocessor")
    if not pixels.values and top.has("data_preprocessor"):
        pixels = top.group("data_preprocessor")
    if pixels.values:
        attempt(notes, preprocessor_rules, pixels, notes)
    if len(notes.refused) == before:  # else groups that no rule came to would be named too
        for group in (model, train, test):
            nothing_left(group, notes)


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
    backbone.need_defaults(style="pytorch", in_channels=3, num_stages=4, out_indices=[0, 1, 2, 3])
    backbone.need_defaults(strides=[1, 2, 2, 2], dilations=[1, 1, 1, 1], deep_stem=False, avg_down=False)
    backbone.need_defaults(dcn=None, plugins=None, conv_cfg=None)
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
    norm.need_defaults(requires_grad=True, eps=1e-5)
    if kind == "GN":
        norm.need_defaults(num_groups=32)
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
    neck.need_defaults(start_level=0, end_level=-1, add_extra_convs=False, relu_before_extra_convs=False)
    neck.need_defaults(no_norm_on_lateral=False, conv_cfg=None, act_cfg=None, upsample_cfg={"mode": "nearest"})
    notes.found("model.fpn.channels", neck.take("out_channels"), neck.key("out_channels"))
    norm = neck.group("norm_cfg")
    if norm.values:
        norm.need("type", "GN")
        norm.need("num_groups", 32)
        norm.need_defaults(requires_grad=True)
        notes.found("model.fpn.norm", "group_norm", neck.key("norm_cfg"))


def _rpn(head: Group, notes: Notes) -> None:
    channels = notes.values.get("model.fpn.channels", (256,))[0]
    head.need("type", "RPNHead")
    head.need_defaults(num_classes=1, num_convs=1, reg_decoded_bbox=False)
    for name in ("in_channels", "feat_channels"):
        head.need(name, channels, default=256)
    anchors = head.group("anchor_generator")
    anchors.need("type", "AnchorGenerator")
    anchors.need_defaults(center_offset=0.0)
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
    if parts.box_stds(head.group("bbox_coder")) != (1.0, 1.0, 1.0, 1.0):
        raise Refused(f"{head.key('bbox_coder.target_stds')}: here they are 1.0")
    loss = head.group("loss_cls")
    loss.need("type", "CrossEntropyLoss")
    loss.need("use_sigmoid", True)
    loss.need_defaults(loss_weight=1.0)
    parts.smooth_l1_beta(head.group("loss_bbox"), "model.rpn.smooth_l1_beta", notes)


def _proposals(train: Group, test: Group, notes: Notes) -> None:
    rpn = train.group("rpn")
    assigner, sampler = parts.matching_of(rpn), parts.sampling_of(rpn, False)
    assigner.need_defaults(match_low_quality=True)
    names = {"pos_iou_thr": "positive_iou", "neg_iou_thr": "negative_iou", "min_pos_iou": "min_positive_iou"}
    parts.copy_values(assigner, notes, "model.rpn.", names)
    parts.copy_values(sampler, notes, "model.rpn.", {"num": "samples", "pos_fraction": "positive_fraction"})
    parts.copy_values(rpn, notes, "model.rpn.", {"allowed_border": "allowed_border"})
    limits = {}
    for group, split in ((train.group("rpn_proposal"), "train"), (test.group("rpn"), "test")):
        group.need_defaults(min_bbox_size=0, nms_across_levels=False)
        group.skip("nms_post")
        most = "max_num" if group.has("max_num") else "max_per_img"
        parts.copy_values(group, notes, "model.rpn.", {"nms_pre": f"pre_nms_{split}", most: f"post_nms_{split}"})
        limits[split] = parts.nms_threshold(group), group.key("nms")
    if limits["train"][0] != limits["test"][0]:
        raise Refused(f"{limits['test'][1]}: another IoU than in training ({limits['train'][0]}); here it is one")
    notes.found("model.rpn.nms_iou", *limits["train"])
