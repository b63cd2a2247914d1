"""Every object of an annotation file as arrays, for facts about classes that only the file knows."""

import array
import dataclasses
import os
from typing import Any

import numpy as np

from c2am_jax.data.json_stream import open_json, read_lists
from c2am_jax.data.lvis import AnnotationError


@dataclasses.dataclass(frozen=True)
class Objects:
    """The n objects of a file that are no crowds, and the texts of its K classes.

    Attributes:
      boxes: float64 [n, 4], (x, y, width, height) in pixels.
      area: float64 [n], of the masks in pixels; of the box where the file has none.
      image_wh: float64 [n, 2], width and height of the image of each.
      label: int64 [n].
      texts: what the file says about each class: name, synset, synonyms, definition.
    """

    boxes: np.ndarray
    area: np.ndarray
    image_wh: np.ndarray
    label: np.ndarray
    texts: tuple[str, ...]


def read_objects(path: str | os.PathLike, category_ids: np.ndarray) -> Objects:
    """All objects of a file, in one pass.

    Args:
      path: json of the LVIS layout, as preparation leaves it.
      category_ids: id of each class, [K].

    Raises:
      AnnotationError: no such file, or one that does not hold images with sizes and annotations with boxes.
    """
    path = os.fspath(path)
    sizes: dict[int, tuple[int, int]] = {}
    image, category, box, area = array.array("q"), array.array("q"), array.array("d"), array.array("d")
    class_of = {int(c): k for k, c in enumerate(category_ids)}
    texts = [""] * len(class_of)

    def on_image(entry: Any, *_: int) -> None:
        sizes[entry["id"]] = entry["width"], entry["height"]

    def on_category(entry: Any, *_: int) -> None:
        said = [entry.get(key, "") for key in ("name", "synset", "def")] + list(entry.get("synonyms", ()))
        if entry["id"] in class_of:
            texts[class_of[entry["id"]]] = " ".join(map(str, said))

    def on_annotation(entry: Any, *_: int) -> None:
        if not entry.get("iscrowd"):
            image.append(entry["image_id"])
            category.append(entry["category_id"])
            box.extend(entry["bbox"])
            area.append(entry.get("area", entry["bbox"][2] * entry["bbox"][3]))

    handlers = {"images": on_image, "categories": on_category, "annotations": on_annotation}
    try:
        with open_json(path) as file:
            read_lists(file, path, handlers)
        image_wh = np.array([sizes[i] for i in image], np.float64).reshape(-1, 2)
        label = np.array([class_of[c] for c in category], np.int64)

    except (KeyError, TypeError, IndexError) as error:
        raise AnnotationError(f"{path}: an entry is not in the LVIS layout ({error}); prepare the data again") from None
    return Objects(np.array(box).reshape(-1, 4), np.array(area), image_wh, label, tuple(texts))
