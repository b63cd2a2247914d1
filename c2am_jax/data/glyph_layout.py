"""The built-in sets on disk: LVIS json and JPEGs in a folder with a marker, which says by which recipe it was drawn."""

import dataclasses
import json
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from c2am_jax.data.glyph_drawing import Look
from c2am_jax.errors import UserError
from c2am_jax.frequency import group_of

MARKER = "glyphs.json"
VAL_IMAGES, VAL_ANNOTATIONS = 10**6, 10**7  # added to the ids of the validation part


def recipe(version: int, settings: Look) -> str:
    """What the marker says: version of the rules, and settings."""
    return json.dumps({"version": version, **dataclasses.asdict(settings)}, sort_keys=True)


def is_drawn(folder: Path, recipe: str) -> bool:
    """Whether a whole set by this recipe is there.

    Raises:
      UserError: the folder holds something else, other data or glyphs of another recipe.
    """
    marker = folder / MARKER
    if marker.is_file() and marker.read_text() == recipe:
        return True
    if folder.exists():
        raise UserError(f"{folder} holds other data than these glyphs: remove it or set another data.dir")
    return False


def spread(counts: np.ndarray, images: int, rng: np.random.Generator, uneven: float = 0.0) -> list[list[int]]:
    """Classes of each image: every class in `counts` different images.

    Images are filled evenly, or one with up to `uneven` classes more than another.
    """
    classes = [[] for _ in range(images)]
    load = rng.uniform(0, uneven, images) if uneven else np.zeros(images)
    for k in np.argsort(-counts, kind="stable"):
        chosen = np.argsort(load + rng.uniform(0, 3, images), kind="stable")[: counts[k]]
        load[chosen] += 1
        for image in chosen:
            classes[image].append(int(k))
    for members in classes:
        rng.shuffle(members)
    return classes


def write_image(
    folder: Path,
    split: str,
    number: int,
    picture: Image.Image,
    *,
    negatives: Sequence[int],
    not_exhaustive: Sequence[int] = (),
) -> dict[str, Any]:
    """Write a JPEG; returns the entry of image `number` of a split.

    `negatives` and `not_exhaustive` are classes, 0 .. K-1.
    """
    image_id = number + 1 + (split == "val") * VAL_IMAGES
    name = f"{split}/{image_id:012d}.jpg"
    picture.save(folder / "images" / name, quality=92)
    return {
        "id": image_id,
        "height": picture.height,
        "width": picture.width,
        "file_name": name,
        "neg_category_ids": [k + 1 for k in negatives],
        "not_exhaustive_category_ids": [k + 1 for k in not_exhaustive],
    }


def annotation_entry(number: int, split: str, image_id: int, k: int, mask: np.ndarray) -> dict[str, Any]:
    """The entry of annotation `number` of a split; `mask` is bool [H, W], `k` its class."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number + 1 + (split == "val") * VAL_ANNOTATIONS,
        "image_id": image_id,
        "category_id": k + 1,
        "bbox": [float(v) for v in coco_mask.toBbox(rle)],
        "area": float(mask.sum()),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
    }


def category_entries(
    characters: str, train: Collection[dict[str, Any]], groups: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """LVIS category dicts with the counts of the training part's annotations.

    `groups` are the classes' letters; without them the counts say which they are.
    """
    instances = np.zeros(len(characters), int)
    images = [set() for _ in characters]
    for annotation in train:
        instances[annotation["category_id"] - 1] += 1
        images[annotation["category_id"] - 1].add(annotation["image_id"])
    categories = []
    for k, character in enumerate(characters):
        name = unicodedata.name(character).lower().replace(" ", "_")
        categories.append(
            {
                "id": k + 1,
                "name": f"{character} ({name})",
                "synset": f"{name}.n.01",
                "frequency": groups[k] if groups else group_of(len(images[k])),
                "image_count": len(images[k]),
                "instance_count": int(instances[k]),
            }
        )
    return categories
