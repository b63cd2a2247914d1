"""What glyphs_lvis is like beside LVIS v1.0: its statistics, a few of its images, and the images of each class.

    python -m c2am_jax.experiments.glyphs_lvis [--data DIR] [--out DIR]

Draws the set if it is not there; prints a table, and writes glyphs_lvis.jpg and glyphs_lvis_counts.png.
"""

import argparse
import collections
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from c2am_jax.data.datasets import built_in_sources
from c2am_jax.data.glyph_plan import ABSENT, FLAGGED, PRESENT
from c2am_jax.data.glyphs_lvis import SPLITS, groups, lvis_counts
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import guarded
from c2am_jax.experiments.figures import COLOURS, figure
from c2am_jax.files import replacing
from c2am_jax.frequency import GROUPS
from c2am_jax.storage import check_output
from c2am_jax.visualization.draw import draw
from c2am_jax.visualization.grid import Captioned, grid
from c2am_jax.wording import counted

LVIS_IMAGES, LVIS_OBJECTS = 100_170, 1_270_141  # of LVIS v1.0's training set, lvisdataset.org
ROWS, COLUMNS, ENLARGE = 2, 4, 2  # of the sheet of images


def statistics(content: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of one split in the LVIS layout.

    Returns:
      "images", "objects" (annotated); by group's letter: "classes", "pairs" (of image and class, annotated), "absent"
      (pairs verified so), "flagged" (annotated pairs that are not exhaustive).
    """
    letter = {category["id"]: category["frequency"] for category in content["categories"]}
    pairs = {(a["image_id"], a["category_id"]) for a in content["annotations"]}

    def by_group(ids):
        found = collections.Counter(letter[i] for i in ids)
        return {group: found[group] for group in GROUPS}

    return {
        "images": len(content["images"]),
        "objects": len(content["annotations"]),
        "classes": by_group(letter),
        "pairs": by_group(k for _, k in pairs),
        "absent": by_group(k for image in content["images"] for k in image["neg_category_ids"]),
        "flagged": by_group(k for image in content["images"] for k in image["not_exhaustive_category_ids"]),
    }


def table(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: rare / common / frequent classes of LVIS and of both parts. `splits` as `statistics` gives them."""
    letters, counts = groups(), lvis_counts()
    columns = [splits[split] for split in SPLITS]

    def shares(part, whole, digits):
        values = [f"{part[g] / whole[g]:.{digits}f}" if whole[g] else "-" for g in GROUPS]
        return " / ".join(values)

    def numbers(values):
        return " / ".join(f"{values[g]:,}" for g in GROUPS)

    lvis_classes = {g: int((letters == g).sum()) for g in GROUPS}
    lvis_pairs = {g: int(counts[letters == g].sum()) for g in GROUPS}
    lines = [
        ("rare / common / frequent", "LVIS v1.0, training", "glyphs_lvis, training", "glyphs_lvis, validation"),
        ("---",) * 4,
        ("images", f"{LVIS_IMAGES:,}", *(f"{c['images']:,}" for c in columns)),
        ("annotated objects", f"{LVIS_OBJECTS:,}", *(f"{c['objects']:,}" for c in columns)),
        ("classes", numbers(lvis_classes), *(numbers(c["classes"]) for c in columns)),
        ("annotated pairs of image and class", numbers(lvis_pairs), *(numbers(c["pairs"]) for c in columns)),
        (
            "pairs verified absent, to one annotated",
            f"{shares(ABSENT, PRESENT, 1)} (100 validation images)",
            *(shares(c["absent"], c["pairs"], 1) for c in columns),
        ),
        (
            "share of annotated pairs not exhaustive",
            f"{shares(FLAGGED, PRESENT, 3)} (the same)",
            *(shares(c["flagged"], c["pairs"], 3) for c in columns),
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sheet(content: Mapping[str, Any], images: Path) -> np.ndarray:
    """The first images of a split with their annotations: character and group's letter; uint8 [H, W, 3]."""
    of_image = collections.defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    text = {c["id"]: f"{c['name'].split()[0]} {c['frequency']}" for c in content["categories"]}
    cells = []
    for image in content["images"][: ROWS * COLUMNS]:
        own = of_image[image["id"]]
        boxes = np.array([a["bbox"] for a in own]).reshape(-1, 4)
        with Image.open(images / image["file_name"]) as picture:
            drawn = draw(
                np.asarray(picture.convert("RGB")),
                np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
                [a["category_id"] - 1 for a in own],
                masks=[coco_mask.decode(a["segmentation"]) > 0 for a in own],
                texts=[text[a["category_id"]] for a in own],
                enlarge=ENLARGE,
            )
        cells.append(
            Captioned(
                drawn,
                f"{counted(len({a['category_id'] for a in own}), 'class')} there, "
                f"{len(image['neg_category_ids'])} verified absent",
            )
        )
    return grid([cells[row : row + COLUMNS] for row in range(0, len(cells), COLUMNS)])


def draw_counts(content: Mapping[str, Any], path: Path) -> None:
    """Training images of each class, LVIS's and this set's, by rank."""
    own = np.array([category["image_count"] for category in content["categories"]])
    table_counts = lvis_counts()
    order = np.argsort(-table_counts, kind="stable")
    with figure(path, 1, 1, (7, 3.6)) as axes:
        plot = axes[0, 0]
        plot.plot(np.arange(1, len(order) + 1), table_counts[order], color=COLOURS[1], label="LVIS v1.0")
        plot.plot(np.arange(1, len(order) + 1), own[order], color=COLOURS[0], label="glyphs_lvis")
        for edge in np.cumsum([(groups() == letter).sum() for letter in "fc"]):
            plot.axvline(edge + 0.5, color="0.7", lw=0.8)
        plot.set(yscale="log", xlabel="class, by LVIS's count", ylabel="training images")
        plot.legend()


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m c2am_jax.experiments.glyphs_lvis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default=DataSettings.dir, help="config.data.dir, the folder of data sets")
    parser.add_argument("--name", choices=("glyphs_lvis", "glyphs_lvis_small"), default="glyphs_lvis")
    parser.add_argument("--out", default="figures", help="where to write the two pictures")
    options = parser.parse_args(arguments)
    check_output("--out", options.out, folder=True)
    check_output("--data", options.data, folder=True)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    places = {split: built_in_sources(DataSettings(options.name, options.data), split) for split in SPLITS}
    contents = {split: json.loads(annotations.read_text()) for split, (annotations, _) in places.items()}
    print(table({split: statistics(content) for split, content in contents.items()}))
    pictures, counts = out / f"{options.name}.jpg", out / f"{options.name}_counts.png"
    with replacing(pictures) as partial:
        Image.fromarray(sheet(contents["train"], places["train"][1])).save(partial, quality=88)
    draw_counts(contents["train"], counts)
    print(f"{pictures}, {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
