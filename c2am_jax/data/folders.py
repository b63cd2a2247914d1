"""Folders in the layouts that common trainers and labelling services write, with a COCO json for each split.

* ``annotations/instances_train2017.json``, ``train2017/``, ``val2017/``: COCO's own, also without the year
* ``train/_annotations.coco.json`` beside its pictures, ``valid/``, ``test/``: what labelling services export
* ``train.json``, ``val.json``, ``images/``, or ``images/train/``, also with the jsons in ``annotations/``
"""

import dataclasses
import re
from pathlib import Path

from c2am_jax.data.json_stream import open_json, read_lists
from c2am_jax.data.lvis import ImageNotFound, find_image
from c2am_jax.errors import UserError

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_LAYOUTS = "annotations/instances_train2017.json, train/_annotations.coco.json or train.json"


@dataclasses.dataclass(frozen=True)
class Split:
    """The json of a split and the folder of its pictures."""

    annotations: Path
    images: Path


def find_splits(folder: str | Path) -> dict[str, Split]:
    """The splits of a folder: "train", "val", and "test" if it is there.

    Raises:
      UserError: no such folder, no json of training or validation where one of the layouts has it, or no folder in
        which the first pictures of a json are.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"config.data.folder={folder}: no such folder")
    patterns = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
    jsons, found = sorted(file for pattern in patterns for file in folder.glob(pattern)), {}
    for split, names in SPLITS.items():
        annotations = next((file for file in jsons if _is_of(file, folder, names)), None)
        if annotations is not None:
            found[split] = Split(annotations, _images_of(annotations, folder, names))
    for split in ("train", "val"):
        if split not in found:
            raise UserError(f"{folder}: no json of the {split} split there, such as {_LAYOUTS}; name the files by hand")
    return found


def _is_of(file: Path, folder: Path, names: tuple[str, ...]) -> bool:
    """Whether a json is that of a split: by its own name, or by that of its folder."""
    name = file.parent.name if file.name == "_annotations.coco.json" else file.stem
    words = re.split(r"[^a-z]+", name.lower().removeprefix("instances_"))
    others = ("captions", "keypoints", "panoptic", "stuff", "image")  # COCO's other tasks; image_info has no objects
    return words[0] in names or (words[-1] in names and words[0] not in others and file.parent != folder)


def _images_of(annotations: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """The folder in which the first picture of a json is."""
    first: list[dict] = []
    with open_json(str(annotations)) as file:
        read_lists(file, str(annotations), {"images": lambda image, *_: first.append(image) if not first else None})
    years = [path for name in names for path in sorted(folder.glob(f"{name}[0-9]*"))]
    inside = [folder / "images" / name for name in names] + [folder / name for name in names]
    places = [annotations.parent, *years, *inside, folder / "images", folder]
    found = []
    for place in places if first and isinstance(first[0], dict) else ():
        try:
            found.append((find_image({"id": "?", **first[0]}, place).elsewhere, place))
        except (ImageNotFound, AttributeError, TypeError):
            continue
    if found:
        return min(found, key=lambda pair: pair[0])[1]  # the first in which it has the named folders, else the first
    raise UserError(f"{annotations}: its first picture is in none of {', '.join(map(str, dict.fromkeys(places)))}")
