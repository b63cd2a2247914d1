"""How evenly each class's objects fill the image: the fractal (box-counting) dimension of their centres.

The rule of FRACAL (Alexandridis et al., CVPR 2025): count the cells of a G x G grid over the image that hold
a centre, for G = 1..64; the dimension is the slope of ln(count) over ln(G). A class of n objects cannot fill grids
of more than n cells, so only G with G^2 <= n count. Classes of fewer than 4 objects, and slopes below 1, get 1.
"""

import os

import numpy as np

from c2am_jax.data.objects import read_objects

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


def of_annotations(path: str | os.PathLike, category_ids: np.ndarray) -> np.ndarray:
    """Fractal dimension of each class of a json of the LVIS layout, [K]; errors as `objects.read_objects`."""
    found = read_objects(path, category_ids)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:] / 2) / found.image_wh
    return fractal_dimensions(centres, found.label, len(category_ids))
