"""Glyphs: the built-in long-tail set. Rendered characters with instance masks, written as LVIS json + JPEG.

About 100 categories follow a Zipf-Mandelbrot law, so that LVIS's rare, common and frequent groups all exist in the
training part; the validation part is balanced. Characters that differ in one stroke (O and Q, Pi and Shch, ...) fall
into different groups, so decision boundaries matter. Everything is a function of the seed.
"""

import dataclasses
import json
import math
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from c2am_jax.errors import UserError
from c2am_jax.frequency import group_of

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrty0123456789ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρστφχψωБДЖЗИЙЛЦЧШЩЭЮЯ&@#?%♣"
DISTRACTORS = "←→↔∞≈≠√∫§¶♪☎"
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
STROKES = (5, 2)  # outline added to each font, so that masks are more than lines
FONT_SIZE = 96
VERSION = 1  # of the rules below; part of the folder's marker


@dataclasses.dataclass(frozen=True)
class GlyphSettings:
    """What is drawn; sizes in pixels, angles in degrees.

    `head` images contain the most frequent category, the k-th ((1 + shift) / (k + shift)) ** slope times as many.
    """

    train_images: int = 2400
    val_images: int = 300
    val_per_category: int = 12
    size: int = 128
    head: int = 700
    slope: float = 2.5
    shift: float = 16.0
    least: int = 4
    glyph_sides: tuple[float, float] = (24.0, 48.0)
    rotation: float = 10.0
    least_visible: float = 0.7
    seed: int = 0


def training_counts(settings: GlyphSettings) -> np.ndarray:
    """How many training images shall contain the k-th most frequent category."""
    rank = np.arange(1, len(CHARACTERS) + 1)
    counts = settings.head * ((1 + settings.shift) / (rank + settings.shift)) ** settings.slope
    return np.maximum(counts.astype(int), settings.least)


def _glyph_masks(characters: str) -> dict[tuple[str, str], Image.Image]:
    """Each character in each font, cropped to its ink."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    masks = {}
    for font_name, stroke in zip(FONTS, STROKES, strict=True):
        font = ImageFont.truetype(str(folder / font_name), FONT_SIZE)
        for character in characters:
            canvas = Image.new("L", (2 * FONT_SIZE, 2 * FONT_SIZE))
            ImageDraw.Draw(canvas).text(
                (FONT_SIZE // 2, FONT_SIZE // 4), character, fill=255, font=font, stroke_width=stroke
            )
            masks[character, font_name] = canvas.crop(canvas.getbbox())
    return masks


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Colour gradient, soft noise and a few shapes: float [size, size, 3], 0-255."""
    corners = rng.uniform(0, 255, (2, 2, 3))
    corners = corners.mean((0, 1)) + 0.4 * (corners - corners.mean((0, 1)))
    t = np.linspace(0, 1, size)
    rows = corners[0][None] * (1 - t)[:, None, None] + corners[1][None] * t[:, None, None]
    pixels = rows[:, :1] * (1 - t)[None, :, None] + rows[:, 1:] * t[None, :, None]
    canvas = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(0, size, 2)
        w, h = rng.uniform(size / 8, size / 2, 2)
        colour = tuple(int(v) for v in np.clip(pixels[int(y), int(x)] + rng.uniform(-50, 50, 3), 0, 255))
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=colour)
    return np.asarray(canvas, np.float32) + rng.normal(0, 6, (size, size, 1))


def _place(pixels: np.ndarray, glyph: Image.Image, settings: GlyphSettings, rng: np.random.Generator) -> np.ndarray:
    """Draw one glyph at random size, angle, place and colour; returns its mask, bool [size, size]."""
    size = settings.size
    side = math.exp(rng.uniform(*np.log(settings.glyph_sides)))
    scale = side / max(glyph.size)
    shape = (max(2, round(glyph.width * scale)), max(2, round(glyph.height * scale)))
    turned = glyph.resize(shape, Image.Resampling.BILINEAR).rotate(
        rng.uniform(-settings.rotation, settings.rotation), Image.Resampling.BILINEAR, expand=True
    )
    ink = np.asarray(turned, np.float32) / 255
    height, width = ink.shape
    top, left = rng.integers(0, max(size - height, 1)), rng.integers(0, max(size - width, 1))
    ink = ink[: size - top, : size - left]
    region = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
    behind = pixels[region].mean((0, 1))
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - behind).mean() < 80:
        colour = rng.uniform(0, 255, 3)
    pixels[region] += ink[..., None] * (colour - pixels[region])
    mask = np.zeros((size, size), bool)
    mask[region] = ink >= 0.5
    return mask


def _draw(
    classes: list[int], masks: dict, settings: GlyphSettings, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """One image uint8 and its visible (class, mask); later glyphs lie above earlier ones."""
    pixels = _background(rng, settings.size)
    drawn = []
    for _ in range(rng.integers(0, 2)):
        _place(pixels, masks[rng.choice(list(DISTRACTORS)), FONTS[0]], settings, rng)
    for k in classes:
        before = pixels.copy()
        for _ in range(8):  # look for a place that leaves the others visible
            mask = _place(pixels, masks[CHARACTERS[k], FONTS[rng.integers(len(FONTS))]], settings, rng)
            if all((m & ~mask).sum() >= settings.least_visible * full for _, m, full in drawn):
                break
            pixels[:] = before
        else:
            continue
        drawn = [(c, m & ~mask, full) for c, m, full in drawn] + [(k, mask, mask.sum())]
    return np.clip(pixels, 0, 255).astype(np.uint8), [(k, m) for k, m, _ in drawn if m.any()]


def _spread(counts: np.ndarray, images: int, rng: np.random.Generator) -> list[list[int]]:
    """Classes of each image: every class in about `counts` different images, images filled evenly."""
    classes = [[] for _ in range(images)]
    load = np.zeros(images)
    for k in np.argsort(-counts, kind="stable"):
        chosen = np.argsort(load + rng.uniform(0, 3, images), kind="stable")[: counts[k]]
        load[chosen] += 1
        for image in chosen:
            classes[image].append(int(k))
    for members in classes:
        rng.shuffle(members)
    return classes


def _part(split: str, classes: list[list[int]], folder: Path, masks: dict, settings: GlyphSettings) -> dict[str, Any]:
    """Draw a split, write its JPEGs, return images and annotations."""
    (folder / "images" / split).mkdir(parents=True)
    images, annotations = [], []
    for number, members in enumerate(classes):
        rng = np.random.default_rng((settings.seed, split == "val", number))
        pixels, visible = _draw(members, masks, settings, rng)
        image_id = number + 1 + (split == "val") * 10**6
        name = f"{split}/{image_id:012d}.jpg"
        Image.fromarray(pixels).save(folder / "images" / name, quality=92)
        present = {k for k, _ in visible}
        absent = [k + 1 for k in range(len(CHARACTERS)) if k not in present and rng.random() < 0.25]
        images.append(
            {
                "id": image_id,
                "height": settings.size,
                "width": settings.size,
                "file_name": name,
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": [],
            }
        )
        for k, mask in visible:
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1 + (split == "val") * 10**7,
                    "image_id": image_id,
                    "category_id": k + 1,
                    "bbox": [float(v) for v in coco_mask.toBbox(rle)],
                    "area": float(mask.sum()),
                    "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
                }
            )
    return {"images": images, "annotations": annotations}


def _categories(train: dict[str, Any]) -> list[dict[str, Any]]:
    """LVIS category dicts with the training part's counts."""
    instances = np.zeros(len(CHARACTERS), int)
    images = [set() for _ in CHARACTERS]
    for annotation in train["annotations"]:
        instances[annotation["category_id"] - 1] += 1
        images[annotation["category_id"] - 1].add(annotation["image_id"])
    categories = []
    for k, character in enumerate(CHARACTERS):
        name = unicodedata.name(character).lower().replace(" ", "_")
        count = len(images[k])
        categories.append(
            {
                "id": k + 1,
                "name": f"{character} ({name})",
                "synset": f"{name}.n.01",
                "frequency": group_of(count),
                "image_count": count,
                "instance_count": int(instances[k]),
            }
        )
    return categories


def generate(folder: str | os.PathLike, settings: GlyphSettings = GlyphSettings()) -> None:
    """Write annotations_train.json, annotations_val.json and images/ into `folder`, unless they are there already.

    Drawn into a folder beside it and renamed, so an interruption leaves nothing half-made.

    Raises:
      UserError: the folder holds something else, other data or glyphs of another recipe.
    """
    folder = Path(folder)
    recipe = json.dumps({"version": VERSION, **dataclasses.asdict(settings)}, sort_keys=True)
    marker = folder / "glyphs.json"
    if marker.is_file() and marker.read_text() == recipe:
        return
    if folder.exists():
        raise UserError(f"{folder} holds other data than these glyphs: remove it or set another data.dir")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    masks = _glyph_masks(CHARACTERS + DISTRACTORS)
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(CHARACTERS))  # which character is how frequent
    counts = np.empty(len(CHARACTERS), int)
    counts[order] = training_counts(settings)
    even = np.full(len(CHARACTERS), settings.val_per_category)
    train = _part("train", _spread(counts, settings.train_images, rng), partial, masks, settings)
    val = _part("val", _spread(even, settings.val_images, rng), partial, masks, settings)
    categories = _categories(train)
    for name, part in (("train", train), ("val", val)):
        (partial / f"annotations_{name}.json").write_text(json.dumps({**part, "categories": categories}))
    (partial / "glyphs.json").write_text(recipe)
    partial.rename(folder)
