"""A set of one's own in the COCO layout, to try everything on: coloured squares, triangles and discs.

    python -m c2am_jax.data.shapes --out shapes

Writes 60 training, 12 validation and 12 test pictures of 160 x 120 and 120 x 160, as ``OUT/images/SPLIT/*.jpg``, and
``OUT/train.json``, ``OUT/val.json``, ``OUT/test.json``. The same bytes each time for the same version of Pillow.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from c2am_jax.errors import UserError, guarded
from c2am_jax.storage import check_output

SPLITS = {"train": 60, "val": 12, "test": 12}
CLASSES = ("square", "triangle", "disc")
SIZES = ((160, 120), (120, 160))  # width, height
MOST = 4  # objects of a picture
SIDE = (18, 48)  # pixels of an object


def generate(out: str | Path) -> None:
    """Write pictures and annotations into a new folder.

    Raises:
      UserError: the folder is there and not empty.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: the folder is not empty; name another one or delete it")
    for number, (split, count) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(number)
        folder = out / "images" / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(1, count + 1):
            picture, objects = _picture(rng)
            name = f"{split}_{i:03d}.jpg"
            picture.save(folder / name, quality=95)
            width, height = picture.size
            images.append({"id": i, "file_name": f"{split}/{name}", "height": height, "width": width})
            for entry in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": i, **entry, "iscrowd": 0})
        categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (out / f"{split}.json").write_text(json.dumps(content))


def _picture(rng: np.random.Generator) -> tuple[Image.Image, list[dict[str, Any]]]:
    """A picture and its objects, which do not overlap."""
    width, height = SIZES[rng.integers(len(SIZES))]
    noise = rng.integers(90, 166, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    taken, objects = np.zeros((height, width), bool), []
    for _ in range(rng.integers(1, MOST + 1)):
        side = int(rng.integers(*SIDE))
        x, y = int(rng.integers(width - side)), int(rng.integers(height - side))
        category = int(rng.integers(len(CLASSES)))
        if taken[y : y + side, x : x + side].any():
            continue
        taken[y : y + side, x : x + side] = True
        points = _outline(category, x, y, side)
        colour = tuple(int(value) for value in rng.permutation([235, int(rng.integers(120)), 20]))
        draw.polygon([tuple(point) for point in points.tolist()], fill=colour)
        low, high = points.min(0), points.max(0)
        objects.append(
            {
                "category_id": category + 1,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": round(_area(points), 1),
                "segmentation": [points.ravel().tolist()],
            }
        )
    return picture, objects


def _outline(category: int, x: int, y: int, side: int) -> np.ndarray:
    """Corners of an object, [n, 2]."""
    if CLASSES[category] == "square":
        corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    elif CLASSES[category] == "triangle":
        corners = [(0.5, 0), (1, 1), (0, 1)]
    else:
        turn = np.arange(24) * 2 * np.pi / 24
        corners = np.stack([0.5 + np.cos(turn) / 2, 0.5 + np.sin(turn) / 2], 1)
    return np.round(np.array(corners) * side + (x, y), 1)


def _area(points: np.ndarray) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = points.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m c2am_jax.data.shapes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    options = parser.parse_args(arguments)
    check_output("--out", options.out, folder=True)
    generate(options.out)
    counts = ", ".join(f"{count} {split}" for split, count in SPLITS.items())
    print(f"{options.out}: {counts} pictures of {', '.join(CLASSES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
