"""Parts that RPN and RoI heads both have: assigners, samplers, box coders, losses of boxes, NMS."""

from collections.abc import Mapping

from c2am_jax.interop.mmdetection.groups import Group, Notes


def box_stds(coder: Group) -> tuple[float, ...]:
    """What box differences are divided by; the rest of the coder has to be as it is here."""
    coder.need_defaults(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, clip_border=True, add_ctr_clamp=False)
    return tuple(map(float, coder.take("target_stds", (1.0,) * 4)))


def smooth_l1_beta(loss: Group, key: str, notes: Notes) -> None:
    """Our `key`: where L1 takes over from the square, 0 for plain L1."""
    kind = loss.need("type", "L1Loss", "SmoothL1Loss", default="SmoothL1Loss")
    loss.need_defaults(loss_weight=1.0)
    beta = 0.0 if kind == "L1Loss" else float(loss.take("beta", 1.0))
    notes.found(key, beta, loss.key("type" if kind == "L1Loss" else "beta"))


def matching_of(settings: Group) -> Group:
    """The assigner of a stage, with what no setting changes here."""
    settings.need_defaults(pos_weight=-1)
    settings.skip("debug")
    assigner = settings.group("assigner")
    assigner.need("type", "MaxIoUAssigner")
    assigner.need_defaults(ignore_iof_thr=-1, gt_max_assign_all=True)
    assigner.skip("gpu_assign_thr", "ignore_wrt_candidates")
    assigner.need("iou_calculator", {"type": "BboxOverlaps2D"}, None, default=None)
    return assigner


def sampling_of(settings: Group, adds_truth: bool) -> Group:
    """The sampler of a stage, with what no setting changes here."""
    sampler = settings.group("sampler")
    sampler.need("type", "RandomSampler")
    sampler.need_defaults(neg_pos_ub=-1)
    sampler.need("add_gt_as_proposals", adds_truth, default=True)
    return sampler


def copy_values(group: Group, notes: Notes, prefix: str, names: Mapping[str, str]) -> None:
    """Numbers that have another name here: {theirs: ours}."""
    for theirs, ours in names.items():
        notes.found(f"{prefix}{ours}", group.take(theirs), group.key(theirs))


def nms_threshold(group: Group) -> float:
    """The overlap from which a box is dropped."""
    if group.has("nms_thr"):  # up to MMDetection 2.4
        return float(group.take("nms_thr"))
    nms = group.group("nms")
    nms.need_defaults(type="nms", class_agnostic=False, max_num=-1)
    nms.skip("split_thr")
    return float(nms.take("iou_thr" if nms.has("iou_thr") else "iou_threshold"))
