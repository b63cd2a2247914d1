"""Glyphs: the built-in long-tail set. Rendered characters with instance masks, written as LVIS json + JPEG.

About 100 categories follow a Zipf-Mandelbrot law, so that LVIS's rare, common and frequent groups all exist in the
training part; the validation part is balanced. Characters that differ in one stroke (O and Q, Pi and Shch, ...) fall
into different groups, so decision boundaries matter. Everything is a function of the seed.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.glyph_drawing import Face, Look, Scene, ink, place
from c2am_jax.data.glyph_layout import MARKER, annotation_entry, category_entries, is_drawn, recipe, spread, write_image

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrty0123456789ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρστφχψωБДЖЗИЙЛЦЧШЩЭЮЯ&@#?%♣"
DISTRACTORS = "←→↔∞≈≠√∫§¶♪☎"
FACES = (Face("DejaVuSans.ttf", 5), Face("DejaVuSans-Bold.ttf", 2))
VERSION = 1  # of the rules below; part of the folder's marker


@dataclasses.dataclass(frozen=True)
class GlyphSettings(Look):
    """What is drawn.

    `head` images contain the most frequent category, the k-th ((1 + shift) / (k + shift)) ** slope times as many.
    """

    train_images: int = 2400
    val_images: int = 300
    val_per_category: int = 12
    head: int = 700
    slope: float = 2.5
    shift: float = 16.0
    least: int = 4


def training_counts(settings: GlyphSettings) -> np.ndarray:
    """How many training images shall contain the k-th most frequent category."""
    rank = np.arange(1, len(CHARACTERS) + 1)
    counts = settings.head * ((1 + settings.shift) / (rank + settings.shift)) ** settings.slope
    return np.maximum(counts.astype(int), settings.least)


def _draw(classes: list[int], settings: GlyphSettings, rng: np.random.Generator) -> Scene:
    """One image: sometimes a distractor, and above it the classes as far as there is room."""
    scene = Scene(settings, rng)
    for _ in range(rng.integers(0, 2)):
        place(scene.pixels, ink(str(rng.choice(list(DISTRACTORS))), FACES[0]), settings, rng)
    for k in classes:
        scene.add(k, CHARACTERS[k], FACES)
    return scene


def _part(split: str, classes: list[list[int]], folder: Path, settings: GlyphSettings) -> dict[str, Any]:
    """Draw a split, write its JPEGs, return images and annotations."""
    (folder / "images" / split).mkdir(parents=True)
    images, annotations = [], []
    for number, members in enumerate(classes):
        rng = np.random.default_rng((settings.seed, split == "val", number))
        scene = _draw(members, settings, rng)
        visible = scene.visible()
        present = {k for k, _ in visible}
        absent = [k for k in range(len(CHARACTERS)) if k not in present and rng.random() < 0.25]
        images.append(write_image(folder, split, number, scene.picture(), negatives=absent))
        for k, mask in visible:
            annotations.append(annotation_entry(len(annotations), split, images[-1]["id"], k, mask))
    return {"images": images, "annotations": annotations}


def generate(folder: str | os.PathLike, settings: GlyphSettings = GlyphSettings()) -> None:
    """Write annotations_train.json, annotations_val.json and images/ into `folder`, unless they are there already.

    Drawn into a folder beside it and renamed, so an interruption leaves nothing half-made.

    Raises:
      UserError: the folder holds something else, other data or glyphs of another recipe.
    """
    folder, wanted = Path(folder), recipe(VERSION, settings)
    if is_drawn(folder, wanted):
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(CHARACTERS))  # which character is how frequent
    counts = np.empty(len(CHARACTERS), int)
    counts[order] = training_counts(settings)
    even = np.full(len(CHARACTERS), settings.val_per_category)
    train = _part("train", spread(counts, settings.train_images, rng), partial, settings)
    val = _part("val", spread(even, settings.val_images, rng), partial, settings)
    categories = category_entries(CHARACTERS, train["annotations"])
    for name, part in (("train", train), ("val", val)):
        (partial / f"annotations_{name}.json").write_text(json.dumps({**part, "categories": categories}))
    (partial / MARKER).write_text(wanted)
    partial.rename(folder)
