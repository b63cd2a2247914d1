"""From `config.data` to a prepared data set, preparing it on first use."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from c2am_jax.data import builder, glyphs, glyphs_lvis, prepared
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.files import as_path, is_remote
from c2am_jax.storage import check_output

_LOG = logging.getLogger(__name__)
# Built-in sets by data.name: each is drawn into <data.dir>/<data.name> on first use.
BUILT_IN: dict[str, Callable[[Path], None]] = {
    "glyphs": glyphs.generate,
    "glyphs_lvis": glyphs_lvis.generate,
    "glyphs_lvis_small": lambda folder: glyphs_lvis.generate(folder, glyphs_lvis.SMALL),
}
# Official file names inside <data.dir>/<data.name>/ when the config names none; {split} is train or val.
STANDARD_ANNOTATIONS = {
    "lvis_v1": "lvis_v1_{split}.json",
    "lvis_v05": "lvis_v0.5_{split}.json",
    "coco": "instances_{split}2017.json",
}
DOWNLOADS = {
    "lvis_v1": "lvis_v1_train.json.zip and lvis_v1_val.json.zip from https://www.lvisdataset.org/dataset",
    "lvis_v05": "lvis_v0.5_train.json.zip and lvis_v0.5_val.json.zip from https://www.lvisdataset.org/dataset",
    "coco": "annotations_trainval2017.zip from https://cocodataset.org/#download",
}
IMAGES = "train2017.zip and val2017.zip from http://images.cocodataset.org/zips/"


class MissingDataset(UserError):
    """Nothing to train or evaluate on; the text says what to download into which folder."""


def sources(data: DataSettings, split: str) -> tuple[Path, Path]:
    """Annotation json and image folder of a split, "train", "val" or "test": by settings, or the standard places."""
    folder = as_path(data.dir) / data.name
    standard = STANDARD_ANNOTATIONS.get(data.name, "{split}.json").format(split=split)
    annotations, images = data.annotations, data.images
    if split == "val":
        annotations, images = data.val_annotations, data.val_images or data.images
    if split == "test":
        annotations, images = data.test_annotations, data.test_images or data.val_images or data.images
    return as_path(annotations or folder / standard), as_path(images or folder / "images")


def check_sources(name: str, annotations: Path, images: Path, split: str) -> None:
    """Raise MissingDataset unless file and folder exist; its text says what to download where."""
    if not annotations.is_file() or not images.is_dir():
        raise MissingDataset(_missing(name, annotations, images, split))


def source_of(data: DataSettings, split: str) -> Path:
    """The annotation json of a split as the user knows it; the prepared copy if that one is gone."""
    named = sources(data, split)[0]
    if not is_remote(named) and named.is_file():
        return named
    return as_path(prepared.folder_of(f"{data.name}_{split}", data.dir)) / "annotations.json"


def check_there(data: DataSettings, split: str) -> None:
    """Raises MissingDataset, before any preparation, if a split is not prepared and its files are not there."""
    name = f"{data.name}_{split}"
    if is_remote(data.dir):
        if not prepared.is_prepared(name, data.dir):
            raise MissingDataset(_not_in_bucket(name, data.dir))
        return
    annotations, images = sources(data, split)
    named = {"train": data.annotations, "val": data.val_annotations, "test": data.test_annotations}[split]
    if data.name not in BUILT_IN and not prepared.is_prepared(name, data.dir):
        check_sources(data.name, annotations, images, split)
    elif named and not annotations.is_file():
        raise MissingDataset(_missing(data.name, annotations, images, split))


def check_place(data: DataSettings, split: str) -> None:
    """Raises StorageError if `data.dir` can't be written, but has to be, to draw or prepare a split."""
    if data.name in BUILT_IN or not prepared.is_prepared(f"{data.name}_{split}", data.dir):
        check_output("--config.data.dir", data.dir, folder=True)


def open_dataset(data: DataSettings, split: str) -> prepared.PreparedDataset:
    """The records of a split, "train", "val" or "test"; prepared (built-in ones drawn first) on first use.

    In a bucket they have to be prepared; they are copied to this machine on first use.

    Args:
      data: name, dir, and the json and images of the split count.
      split: "train", "val" or "test".

    Raises:
      MissingDataset: the files are not there; one message says what to do.
      AnnotationError: they are there but not usable, or the records come from other files.
      StorageError: `data.dir` has to be written, and can't be.
    """
    name = f"{data.name}_{split}"
    annotations, images = sources(data, split)
    if is_remote(data.dir):
        check_there(data, split)
        known = not is_remote(annotations) and annotations.is_file()
        return prepared.load(name, data.dir, annotations=annotations if known else "")
    if split == "test":
        _check_test(data, annotations)
    check_there(data, split)
    check_place(data, split)
    if data.name in BUILT_IN:
        annotations, images = built_in_sources(data, split)
    if prepared.is_prepared(name, data.dir):
        _tell_again(name, data.dir)
    else:
        _LOG.info("preparing %s from %s (once)", name, annotations)
        training = sources(data, "train")[0] if split != "train" else Path()
        known = training if training.is_file() else ""
        report = builder.prepare(
            annotations, images, name, data.dir, replace=False, training=known, trains=split == "train"
        )
        for line in builder.faults(report):
            _LOG.warning("%s: %s", name, line)
    # Prepared records do without their source, but if it is there, it must be the one they were made from.
    return prepared.load(name, data.dir, annotations=annotations if annotations.is_file() else "")


def _check_test(data: DataSettings, annotations: Path) -> None:
    """Raises MissingDataset for a data set that has no test set, and the settings name none."""
    own = data.name in BUILT_IN or not (data.test_annotations or annotations.is_file())
    if own and not prepared.is_prepared(f"{data.name}_test", data.dir):
        name = ", under another --config.data.name=NAME" if data.name in BUILT_IN else ""
        raise MissingDataset(
            f"config.eval.split=test: {data.name} has no test set; name one by --config.data.test_annotations=FILE "
            f"and its pictures by --config.data.test_images=DIR{name}"
        )


def _tell_again(name: str, folder: str) -> None:
    """Warn of names of categories, and of images that an earlier preparation could not use: they may be right now."""
    place = as_path(prepared.folder_of(name, folder))
    report = json.loads((place / "report.json").read_text())
    for line in report.get("names", ()):  # older reports do not tell
        _LOG.warning("%s: %s", name, line)
    left_out = {reason: count for reason, count in report["skipped"].items() if reason.startswith("image")}
    if left_out:
        told = ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
        _LOG.warning("%s was prepared earlier, and left out %s; to prepare it again, delete %s", name, told, place)


def built_in_sources(data: DataSettings, split: str) -> tuple[Path, Path]:
    """Annotation json and image folder of a split of a built-in set, which is drawn if it is not there."""
    folder = Path(data.dir) / data.name
    with builder.turns(data.name, data.dir):
        BUILT_IN[data.name](folder)
    return folder / f"annotations_{split}.json", folder / "images"


def _not_in_bucket(name: str, folder: str) -> str:
    return (
        f"{prepared.folder_of(name, folder)}: no finished data set. Prepare it once, on any machine, with python -m "
        f"c2am_jax.data.prepare --annotations FILE --images DIR --name {name} --out {folder}; or copy the folder "
        f"DATA/lvis_layout of a machine where it is prepared: gcloud storage cp -r DATA/lvis_layout {folder}/"
    )


def _missing(name: str, annotations: Path, images: Path, split: str) -> str:
    lacking = annotations if not annotations.is_file() else images
    key = "" if split == "train" else f"{split}_"
    if name not in DOWNLOADS:
        what = ("annotations", "file") if lacking == annotations else ("images", "folder of pictures")
        return f"{lacking}: no such {what[1]}; name it with --config.data.{key}{what[0]}=PATH"
    what = DOWNLOADS[name]
    command, standard = "Download", STANDARD_ANNOTATIONS.get(name, "").format(split=split)
    if standard and annotations.parts[-2:] == (name, standard):  # where the command puts it
        command = f"Run python -m c2am_jax.data.download {name} --out {annotations.parent.parent}, or download"
    unpacked = "them" if " and " in what else "it"
    return (
        f"{lacking} does not exist. {command} {what} and unpack {unpacked} so that {annotations} exists; download "
        f"{IMAGES} and unpack both in {images}. Files elsewhere: --config.data.{key}annotations=FILE "
        f"--config.data.{key}images=DIR. Without any download, configs/glyphs_c2am.py trains on the built-in data."
    )
