"""Settings that follow from the data: what ``configs/own_data.py`` leaves open and the user does not set.

A rule for each: classes and limits are those of the training json; sizes follow from all pictures, those for
validation too: in the network the paper's for photos (short side 640 to 800, COCO's median of 480 enlarged by 5 / 3)
and the same factor for smaller pictures, and as padded shapes the few that hold the pictures; the run is 12 epochs, or
as many as make 1,500 steps.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.checks import WrongSetting
from c2am_jax.data.folders import find_splits
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.sampler import fitting_bucket, target_size
from c2am_jax.data.scanned import Scan
from c2am_jax.files import is_remote
from c2am_jax.wording import counted

KEYS: dict[str, type] = {
    "name": str,
    "model.num_classes": int,
    "data.name": str,
    "data.canvas": int,
    "data.max_instances": int,
    "data.short_sides": tuple,
    "data.max_side": int,
    "data.test_short_side": int,
    "data.buckets": tuple,
    "train.batch_size": int,
    "train.epochs": int,
    "train.checkpoint_every": int,
}
FOLDER = "folder"  # of `config.data`: a layout of `folders`, instead of the files
PHOTO, PHOTO_SIDE, ENLARGED = 400, 800, 5 / 3  # short sides from which a picture is a photo; in the network; factor
LONG = 1333 / 800  # the paper's limit of the long side, as a factor of the short one
WIDE = 1.36  # of the narrower padded shape, 1088 of 800
RARE_SHAPE = 0.05  # share of the pictures below which a padded shape is not worth a program of its own
MOST_INSTANCES = 300
STEPS, EPOCHS = 1500, 12  # of a run, at least


@dataclasses.dataclass(frozen=True)
class _Files:
    """What the settings name; the validation set is None for a run that never evaluates."""

    training: Scan
    validation: Scan | None

    @property
    def image_hw(self) -> np.ndarray:
        """Sizes of all pictures, [N, 2]."""
        scans = [self.training] if self.validation is None else [self.training, self.validation]
        return np.array([(image.height, image.width) for found in scans for image in found.images])


def is_open(tree: Mapping[str, Any]) -> bool:
    """Whether a config's tree leaves values to the data."""
    return FOLDER in tree.get("data", {})


def derived(tree: Mapping[str, Any], devices: int) -> tuple[dict[str, Any], list[str]]:
    """The tree with a value for each key that is None, and what was derived, in lines to print.

    Args:
      tree: of a config, its groups as dicts.
      devices: that share a batch.

    Raises:
      WrongSetting: files are not named.
      UserError: they are not there, or not usable.
    """
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    data = tree["data"]
    _name_files(data)
    evaluates = bool(tree["train"].get("eval_every", -1))
    files = _scanned(data, evaluates)
    values = _values(files, tree, devices)
    chosen = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        place = tree[group] if group else tree
        if place.get(name) is None:
            place[name] = chosen[key] = value
    training, validation = files.training, files.validation
    source = f"{training.name} ({counted(len(training.images), 'picture')}, {counted(len(training.label), 'object')})"
    if validation is not None:
        source += f", sizes also from {validation.name} ({counted(len(validation.images), 'picture')})"
    if tree["train"].get("steps"):
        chosen.pop("train.epochs", None)  # which has no effect then
    head = f"derived from {source}; --config.KEY=VALUE sets another value:"
    return tree, [head, *(f"  {key}={_shown(value)}" for key, value in chosen.items())]


def _shown(value: Any) -> str:
    return str(value).replace(" ", "") if isinstance(value, tuple) else str(value)


def _name_files(data: dict[str, Any]) -> None:
    """Fill in the files of `folder`, which then goes."""
    folder = data.pop(FOLDER)
    if folder:
        splits = find_splits(folder)
        for split, prefix in (("train", ""), ("val", "val_"), ("test", "test_")):
            if split in splits:
                data[f"{prefix}annotations"] = data.get(f"{prefix}annotations") or str(splits[split].annotations)
                data[f"{prefix}images"] = data.get(f"{prefix}images") or str(splits[split].images)
    for key, what in (("annotations", "FILE, the json of the training pictures"), ("images", "DIR, the pictures")):
        if not data.get(key):
            raise WrongSetting(
                f"config.data.{key}", f": give --config.data.{key}={what}; or all by --config.data.folder=DIR"
            )
    for key in ("images", "val_images", "test_images"):
        folder = data.get(key)
        if folder and not is_remote(folder) and not Path(folder).is_dir():
            raise WrongSetting(f"config.data.{key}", f"={folder}: no such folder of pictures")


def _scanned(data: Mapping[str, Any], evaluates: bool) -> _Files:
    if evaluates and not data.get("val_annotations"):
        raise WrongSetting(
            "config.data.val_annotations",
            ": give --config.data.val_annotations=FILE, the json of the validation pictures, or "
            "--config.train.eval_every=0 to train without",
        )
    training = scan(data["annotations"])
    training.require_images()
    training.require_objects()
    validation = scan(data["val_annotations"]) if evaluates else None
    if validation is not None:
        validation.require_images()
    return _Files(training, validation)


def _values(files: _Files, tree: Mapping[str, Any], devices: int) -> dict[str, Any]:
    training, hw = files.training, files.image_hw
    name = _name(Path(training.path))
    median = float(np.median(hw.min(1)))
    top = tree["data"].get("test_short_side") or _top(median)
    sides = sorted({int(round(side / 8)) * 8 for side in np.linspace(0.8 * top, top, 6)} | {top})
    max_side = tree["data"].get("max_side") or max(round(LONG * top), top)
    buckets = shapes(hw, top, max_side)
    batch = tree["train"].get("batch_size") or max(4, 2 * devices)
    per_epoch = max(1, int((np.diff(training.start) > 0).sum()) // batch)
    epochs = tree["train"].get("epochs") or max(EPOCHS, -(-STEPS // per_epoch))
    length = tree["train"].get("steps") or epochs * per_epoch
    most = int(np.diff(training.start).max(initial=1))
    return {
        "name": f"own_{name}",
        "model.num_classes": len(training.categories),
        "data.name": f"{name}_{_digest(files, tree['data'])}",
        "data.canvas": _up(min(int(hw.max()), max_side), 32),
        "data.max_instances": min(_up(most, 8), MOST_INSTANCES),
        "data.short_sides": tuple(sides),
        "data.max_side": max_side,
        "data.test_short_side": top,
        "data.buckets": buckets,
        "train.batch_size": batch,
        "train.epochs": epochs,
        "train.checkpoint_every": max(1, length // 10),
    }


def _up(value: float, step: int) -> int:
    return -int(-value // step) * step


def _top(median: float) -> int:
    """Short side in the network of pictures with this median short side."""
    if median >= PHOTO:
        return PHOTO_SIDE
    return min(max(_up(ENLARGED * median, 32), 64), PHOTO_SIDE)


def shapes(hw: np.ndarray, top: int, max_side: int) -> tuple[tuple[int, int], ...]:
    """Padded shapes for pictures [N, 2] whose short side becomes `top` and whose long side at most `max_side`.

    Square, 1.36 times as long and as long as allowed, lying and standing; of these only what holds a picture, and those
    of a few pictures only if no other does.
    """
    short, wide, long = _up(top, 32), _up(WIDE * top, 32), _up(max_side, 32)
    every = dict.fromkeys([(short, short), (short, wide), (wide, short), (short, long), (long, short)])
    target = np.maximum(target_size(hw, top, max_side), 1)
    kept = [shape for shape in every if min(shape) >= short]
    while True:
        counts = np.bincount(fitting_bucket(target, tuple(kept)), minlength=len(kept))
        for place in np.argsort(counts, kind="stable"):
            others = [shape for i, shape in enumerate(kept) if i != place]
            if counts[place] > RARE_SHAPE * len(hw) or not others:
                continue
            if np.any([(target <= shape).all(1) for shape in others], axis=0).all():
                kept = others
                break
        else:
            return tuple(kept)


def _name(path: Path) -> str:
    """What to call a data set: its json's name, or that of the folder where the name says the split only."""
    words = [path.stem, *(part for part in reversed(path.absolute().parent.parts))]
    plain = r"annotations?|instances?|train(ing)?|coco|labels?|images?|photos?|pictures?|data|val(id(ation)?)?|[\W\d_]"
    chosen = next((word for word in words if re.sub(plain, "", word.lower())), "own")
    return re.sub(r"[_-]*train(ing)?\d*$", "", re.sub(r"\W+", "_", chosen).strip("_")) or "own"


def _digest(files: _Files, data: Mapping[str, Any]) -> str:
    """A few digits of both jsons and where the pictures lie beside them: other files are another prepared data set."""
    texts = [files.training.sha256, files.validation.sha256 if files.validation else ""]
    home = Path(files.training.path).absolute().parent
    for key in ("images", "val_images"):
        folder = data.get(key) or ""
        texts.append(folder if not folder or is_remote(folder) else os.path.relpath(folder, home))
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:8]
