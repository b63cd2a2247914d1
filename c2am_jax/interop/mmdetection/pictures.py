"""Data sets, files, sampling, and how training and validation see pictures."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from c2am_jax.interop.mmdetection.groups import Group, Notes, Refused, attempt, nothing_left, shortened

# Data sets by their class and the name of their training json; others are own data.
_DATASETS = {
    ("LVISV1Dataset", "lvis_v1_train.json"): "lvis_v1",
    ("LVISDataset", "lvis_v0.5_train.json"): "lvis_v05",
    ("LVISV05Dataset", "lvis_v0.5_train.json"): "lvis_v05",
    ("CocoDataset", "instances_train2017.json"): "coco",
}


_JSON_DATASETS = {kind for kind, _ in _DATASETS}
_FILES = ("backend_args", "file_client_args", "imdecode_backend", "backend", "color_type")  # how, not what


def preprocessor_rules(pixels: Group, notes: Notes) -> None:
    """What 3.x does to pixels on the device."""
    pixels.need_defaults(type="DetDataPreprocessor", rgb_to_bgr=False, batch_augments=None)
    pixels.need("bgr_to_rgb", True, default=False)
    pixels.need("pad_size_divisor", 32, default=1)
    pixels.skip("pad_mask", "mask_pad_value", "pad_value", "non_blocking", "pad_seg", "seg_pad_value", "boxtype2tensor")
    _pixels(pixels, notes)


def _pixels(group: Group, notes: Notes) -> None:
    for name in ("mean", "std"):
        notes.found(f"data.{name}", tuple(map(float, group.take(name))), group.key(name))


def data_rules(top: Group, notes: Notes) -> None:
    """Training and validation data: which, how sampled, how pictures are seen."""
    new, loader = loader_of(top)
    dataset = _unwrapped(loader.group("dataset" if new else "train"), notes)
    validation = top.group("val_dataloader").group("dataset") if new else loader.group("val")
    if new:
        attempt(notes, _sampler, loader, notes)
    attempt(notes, _files, dataset, validation, notes)
    attempt(notes, _training_pictures, dataset, notes)
    attempt(notes, _test_pictures, validation, notes)
    attempt(notes, _shapes, notes)


def loader_of(top: Group) -> tuple[bool, Group]:
    """Whether the config is of 3.x, and what loads its training pictures."""
    new = top.has("train_dataloader")
    if not new and not top.has("data"):
        raise Refused("the config has neither train_dataloader (3.x) nor data (2.x)")
    return new, top.group("train_dataloader" if new else "data")


def rest_of_data(top: Group, notes: Notes) -> None:
    """Refuse what no rule has read of the training data, once all rules have."""
    _, loader = loader_of(top)
    loader.skip("num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "drop_last", "timeout")
    loader.skip("collate_fn", "workers_per_gpu", "test", "train_dataloader", "val_dataloader", "test_dataloader")
    loader.inner.pop("val", None)  # of 2.x, read for its pictures alone
    nothing_left(loader, notes)


def _unwrapped(dataset: Group, notes: Notes) -> Group:
    """The data set behind its wrappers, which become sampler and length."""
    times = 1
    notes.found("data.sampler", "random", dataset.key("type"))
    while dataset.has("dataset"):
        kind = dataset.need("type", "ClassBalancedDataset", "RepeatDataset")
        if kind == "RepeatDataset":
            times *= dataset.take("times")
        else:
            dataset.need_defaults(filter_empty_gt=True)
            notes.found("data.sampler", "repeat_factor", dataset.key("type"))
            notes.found("data.repeat_threshold", dataset.take("oversample_thr"), dataset.key("oversample_thr"))
        dataset = dataset.group("dataset")
    notes.found("times", times, dataset.path)
    return dataset


def _sampler(loader: Group, notes: Notes) -> None:
    sampler = loader.group("sampler")
    kind = sampler.need("type", "DefaultSampler", "InfiniteSampler", "ClassAwareSampler", default="DefaultSampler")
    sampler.need_defaults(shuffle=True)
    sampler.skip("seed", "round_up")
    if kind == "ClassAwareSampler":
        sampler.need_defaults(num_sample_class=1)
        notes.found("data.sampler", "class_aware", sampler.key("type"))
    batches = loader.group("batch_sampler")
    if batches.values:
        batches.need("type", "AspectRatioBatchSampler")


def _files(dataset: Group, validation: Group, notes: Notes) -> None:
    kind = dataset.need("type", *sorted(_JSON_DATASETS))
    dataset.skip("pipeline", "backend_args", "file_client_args", "test_mode", "lazy_init", "serialize_data")
    dataset.need_defaults(filter_empty_gt=True, seg_prefix=None)
    dataset.group("filter_cfg").need_defaults(filter_empty_gt=True, min_size=32)
    dataset.need("proposal_file", None, "", default=None)
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
            attempt(notes, _SIZES[kind], transform, notes)
        elif kind in _OTHERS:
            attempt(notes, _OTHERS[kind], transform, notes)
        else:
            notes.refused.append(f"{transform.key('type')}={kind!r}: no such change of pictures here")
            continue
        transform.skip(*_FILES)
        if len(notes.refused) == before:
            nothing_left(transform, notes)
    if sizes != 1 and len(notes.refused) == before:
        raise Refused(f"{dataset.key('pipeline')}: {sizes} resizings; here it is one")


def _sides(scales: Sequence[Any], source: str) -> tuple[list[int], int]:
    """Short sides and the limit of the long one, of pairs in either order."""
    pairs = [sorted(scale) for scale in scales if isinstance(scale, list | tuple) and len(scale) == 2]
    if len(pairs) != len(scales) or len({long for _, long in pairs}) != 1:
        raise Refused(
            f"{source}={shortened(scales)}: pairs of a short side and one limit of the long side are expected"
        )
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
    transform.need_defaults(ratio_range=None, bbox_clip_border=True, clip_object_border=True, interpolation="bilinear")
    mode = transform.need("multiscale_mode", "range", "value", default="range")
    transform.skip("override")
    _resized(transform, "img_scale" if old else "scale", mode == "range", notes)


def _choice_resize(transform: Group, notes: Notes) -> None:
    transform.need("keep_ratio", True, default=False)
    transform.need_defaults(resize_type="Resize")
    _resized(transform, "scales", False, notes)


def _random_resize(transform: Group, notes: Notes) -> None:
    transform.need("keep_ratio", True, default=False)
    transform.need_defaults(ratio_range=None, resize_type="Resize")
    _resized(transform, "scale", True, notes)


def _flip(transform: Group, notes: Notes) -> None:
    transform.need_defaults(direction="horizontal")
    name = "flip_ratio" if transform.has("flip_ratio") else "prob"
    notes.found("data.flip_probability", float(transform.take(name)), transform.key(name))


def _normalize(transform: Group, notes: Notes) -> None:
    transform.need_defaults(to_rgb=True)
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
    transform.need_defaults(with_bbox=True)
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
        many[0].need_defaults(flip=False)
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
