"""How evenly each class's objects fill the image: the fractal (box-counting) dimension of their centres.

The rule of FRACAL (Alexandridis et al., CVPR 2025): count the cells of a G x G grid over the image that hold
a centre, for G = 1..64; the dimension is the slope of ln(count) over ln(G). A class of n objects cannot fill grids
of more than n cells, so only G with G^2 <= n count. Classes of fewer than 4 objects, and slopes below 1, get 1.
"""

import array
import os
from typing import Any

import numpy as np

from c2am_jax.data.json_stream import BrokenJson, read_lists
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.data.lvis_scan import open_json

LARGEST_GRID = 64
FEWEST = 4  # objects


def cells_hit(centres: np.ndarray, label: np.ndarray, classes: int, grid: int) -> np.ndarray:
    """Cells of a `grid` x `grid` partition of the unit square that hold a centre of each class: int64 [K].

    `centres` [n, 2] in 0..1 and `label` [n].
    """
    cell = np.clip((centres * grid).astype(np.int64), 0, grid - 1)
    hit = np.zeros(classes * grid * grid, bool)
    hit[(label.astype(np.int64) * grid + cell[:, 0]) * grid + cell[:, 1]] = True
    return hit.reshape(classes, -1).sum(1)


def fractal_dimensions(centres: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Box-counting dimension of each class: float64 [K], 1 to 2. `centres` [n, 2] in 0..1, `label` [n]."""
    count = np.bincount(label, minlength=classes)
    grids = np.arange(1, LARGEST_GRID + 1)
    hits = np.stack([cells_hit(centres, label, classes, int(grid)) for grid in grids], 1)
    usable = grids**2 <= count[:, None]
    x, y = np.where(usable, np.log(grids), 0), np.where(usable, np.log(np.maximum(hits, 1)), 0)
    points = np.maximum(usable.sum(1), 1)
    centred = np.where(usable, x - (x.sum(1) / points)[:, None], 0)
    slope = (centred * y).sum(1) / np.maximum((centred**2).sum(1), 1e-12)
    return np.where(count < FEWEST, 1.0, np.maximum(slope, 1.0))


def read_centres(path: str | os.PathLike, category_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all objects in units of their image, [n, 2] as (x, y), and their classes [n]; one pass.

    Args:
      path: json of the LVIS layout, as preparation leaves it.
      category_ids: id of each class, [K].

    Raises:
      AnnotationError: no such file, or one that does not hold images with sizes and annotations with boxes.
    """
    path = os.fspath(path)
    sizes: dict[int, tuple[int, int]] = {}
    image, category, box = array.array("q"), array.array("q"), array.array("d")

    def on_image(entry: Any, offset: int, length: int) -> None:
        del offset, length
        sizes[entry["id"]] = entry["width"], entry["height"]

    def on_annotation(entry: Any, offset: int, length: int) -> None:
        del offset, length
        if not entry.get("iscrowd"):
            image.append(entry["image_id"])
            category.append(entry["category_id"])
            box.extend(entry["bbox"])

    try:
        with open_json(path) as file:
            read_lists(file, path, {"images": on_image, "annotations": on_annotation})
        size = np.array([sizes[i] for i in image], np.float64).reshape(-1, 2)
        class_of = {int(c): k for k, c in enumerate(category_ids)}
        label = np.array([class_of[c] for c in category], np.int64)
    except BrokenJson as error:
        raise AnnotationError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise AnnotationError(f"{path}: an entry is not in the LVIS layout ({error}); prepare the data anew") from None
    boxes = np.array(box).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:] / 2) / size, label


def of_annotations(path: str | os.PathLike, category_ids: np.ndarray) -> np.ndarray:
    """Fractal dimension of each class of a json of the LVIS layout, [K]; errors as `read_centres`."""
    return fractal_dimensions(*read_centres(path, category_ids), len(category_ids))
