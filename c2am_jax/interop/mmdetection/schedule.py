"""Optimiser, batch, length and learning rates."""

import dataclasses
from collections.abc import Sequence

from c2am_jax.interop.mmdetection.groups import Group, Notes, Refused, nothing_left
from c2am_jax.interop.mmdetection.parts import copy_values
from c2am_jax.interop.mmdetection.pictures import loader_of
from c2am_jax.wording import noun


def optimiser_rules(top: Group, notes: Notes) -> None:
    """SGD with momentum, weight decay and clipping."""
    wrapper = top.group("optim_wrapper")
    optimizer = wrapper.group("optimizer") if wrapper.values else top.group("optimizer")
    if wrapper.values:
        kind = wrapper.need("type", "OptimWrapper", "AmpOptimWrapper", default="OptimWrapper")
        wrapper.need_defaults(accumulative_counts=1)
        wrapper.need("paramwise_cfg", None, {}, default=None)
        wrapper.skip("loss_scale", "dtype")
        if kind == "AmpOptimWrapper":
            _half(wrapper.key("type"), notes)
        clip = wrapper.group("clip_grad")
    else:
        options = top.group("optimizer_config")
        options.skip("type", "loss_scale", "distributed")
        clip = options.group("grad_clip")
        nothing_left(options, notes)
    if top.has("fp16"):
        top.skip("fp16")
        _half("fp16", notes)
    optimizer.need("type", "SGD")
    optimizer.need_defaults(nesterov=False, dampening=0)
    optimizer.need("paramwise_cfg", None, {}, default=None)
    for name in ("momentum", "weight_decay"):
        notes.found(f"train.{name}", float(optimizer.take(name, 0.0)), optimizer.key(name))
    notes.found("lr", optimizer.take("lr"), optimizer.key("lr"))
    if clip.values:
        clip.need_defaults(norm_type=2)
        notes.found("train.grad_clip", float(clip.take("max_norm")), clip.key("max_norm"))
    for group in (wrapper, optimizer):
        nothing_left(group, notes)


def _half(source: str, notes: Notes) -> None:
    notes.leave(f"{source}: float16; computed in float32 here, --config.train.compute_dtype=bfloat16 is nearest to it")


def schedule_rules(top: Group, notes: Notes, gpus: int) -> None:
    """Batch of so many GPUs, learning rate, length, drops and warm-up."""
    new, loader = loader_of(top)
    name = "batch_size" if new else "samples_per_gpu"
    each = loader.take("imgs_per_gpu" if loader.has("imgs_per_gpu") else name)
    batch = each * gpus
    notes.found("train.batch_size", batch, f"{loader.key(name)} x {gpus} {noun(gpus, 'GPU')} (--gpus)")
    if "lr" in notes.values:
        rate, source = notes.values.pop("lr")
        scaling = top.group("auto_scale_lr")
        base = scaling.take("base_batch_size", 16) if scaling.take("enable", False) else batch
        text = f"{source}={rate} of {base} {noun(base, 'picture')}, here of 16"
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
    loop.need_defaults(dynamic_intervals=None)
    name = "max_iters" if by_steps else "max_epochs"
    number = loop.take(name)
    if by_steps:
        notes.found("train.steps", number, loop.key(name))
    else:
        source = f"{loop.key(name)}={number}, each picture {times} times" if times > 1 else loop.key(name)
        notes.found("train.epochs", number * times, source)
    notes.leave("evaluation: once, at the end; --config.train.eval_every=STEPS for more")
    nothing_left(loop, notes)
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
            scheduler.need_defaults(end_factor=1.0)
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
        nothing_left(scheduler, notes)


def _lr_config(config: Group, length: _Length, notes: Notes) -> None:
    config.need("policy", "step", "Step")
    steps = config.take("step")
    by_steps = not config.take("by_epoch", not length.by_steps)
    _drops(list(steps), by_steps, length, config.key("step"), notes)
    notes.found("train.lr_gamma", float(config.take("gamma", 0.1)), config.key("gamma"))
    config.need_defaults(min_lr=None)
    if config.need("warmup", "linear", None, default=None):
        config.need_defaults(warmup_by_epoch=False)
        copy_values(config, notes, "train.", {"warmup_iters": "warmup_steps", "warmup_ratio": "warmup_factor"})
    else:
        config.skip("warmup_iters", "warmup_ratio")
        notes.found("train.warmup_steps", 0, config.key("warmup"))
    nothing_left(config, notes)
