"""glyphs_lvis: LVIS v1.0's 1203 classes, counts and federated annotations, with rendered characters; no download.

Class k is annotated in as many training images as LVIS's category k + 1, at most `cap`; rare, common and frequent
classes are LVIS's. Characters that look alike (`glyph_families.txt`) have different frequencies. Each has three to six
faces. What is annotated in an image, and what is not, follows `glyph_plan`. Everything is a function of the seed, and
the same on every machine: characters are drawn by `glyph_outlines`.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data.glyph_drawing import Face, Look, Scene
from c2am_jax.data.glyph_layout import MARKER, annotation_entry, category_entries, is_drawn, recipe, write_image
from c2am_jax.data.glyph_outlines import PEN, characters_of
from c2am_jax.data.glyph_plan import Planned, plan
from c2am_jax.errors import UserError
from c2am_jax.files import replace_text
from c2am_jax.frequency import GROUPS, group_of
from c2am_jax.processes import WorkerPool
from c2am_jax.progress import Counter

FACES = (
    Face("DejaVuSans.ttf", 5),
    Face("DejaVuSans-Bold.ttf", 2),
    Face("DejaVuSerif.ttf", 5),
    Face("DejaVuSerif-Bold.ttf", 2),
    Face("STIXGeneral.ttf", 5),
    Face("STIXGeneralBol.ttf", 2),
)
VERSION = 1  # of the rules here and in `glyph_plan`; part of the folder's marker
BLOCK = 100  # images that a process draws at a time
SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class LvisGlyphSettings(Look):
    """What is drawn.

    Attributes:
      train_images, val_images: how many.
      cap: most training images in which a class is annotated.
      val_of_group: validation images in which each rare, common and frequent class is annotated.
      objects: most in an image.
      unverified: probability that an image has an object of a class that nothing is said of there.
    """

    glyph_sides: tuple[float, float] = (20.0, 40.0)
    train_images: int = 20_000
    val_images: int = 1500
    cap: int = 200
    val_of_group: tuple[int, int, int] = (4, 6, 7)
    objects: int = 10
    unverified: float = 0.5


# All classes with a few images each: to try commands out, and for tests. Its groups are LVIS's all the same.
SMALL = LvisGlyphSettings(train_images=240, val_images=240, cap=1, val_of_group=(1, 1, 1))


def lvis_counts() -> np.ndarray:
    """Training images of LVIS v1.0's categories 1 to 1203, int [1203]."""
    text = Path(__file__).with_name("lvis_v1_image_counts.txt").read_text()
    return np.array([int(n) for line in text.splitlines() if not line.startswith("#") for n in line.split()])


def groups() -> np.ndarray:
    """The classes' letters, str [1203]: LVIS v1.0's."""
    return np.array([group_of(count) for count in lvis_counts()])


def families() -> list[str]:
    """All characters; those of one text look alike, and neighbours more than others."""
    return Path(__file__).with_name("glyph_families.txt").read_text(encoding="utf-8").split()


@functools.cache
def faces_of(character: str) -> tuple[Face, ...]:
    """The faces that have a character."""
    return tuple(face for face in FACES if character in characters_of(face))


def characters(seed: int) -> str:
    """The character of each class: neighbours in `families` are of different groups."""
    rng = np.random.default_rng((seed, 2))
    letters = groups()
    left = {letter: rng.permutation(np.flatnonzero(letters == letter)).tolist() for letter in GROUPS}
    size = {letter: len(classes) for letter, classes in left.items()}
    chosen, last = [""] * len(letters), ""
    for character in "".join(families()):
        # Of the group of which the largest share is left; equal shares in the order of GROUPS.
        last = max((letter for letter in GROUPS if letter != last), key=lambda letter: len(left[letter]) / size[letter])
        chosen[left[last].pop()] = character
    return "".join(chosen)


def training_counts(settings: LvisGlyphSettings) -> np.ndarray:
    """Training images in which each class is annotated, int [1203]."""
    return np.minimum(lvis_counts(), settings.cap)


def planned_images(settings: LvisGlyphSettings, split: str) -> list[Planned]:
    """The images of a split."""
    letters, table = groups(), lvis_counts()
    each = dict(zip(GROUPS, settings.val_of_group, strict=True))
    counts = training_counts(settings) if split == "train" else np.array([each[letter] for letter in letters])
    return plan(
        counts,
        letters,
        settings.train_images if split == "train" else settings.val_images,
        np.random.default_rng((settings.seed, SPLITS.index(split))),
        objects=settings.objects,
        unverified=settings.unverified,
        occurrence=np.where(letters == "f", table, 0),
    )


def _drawn(image: Planned, names: str, settings: LvisGlyphSettings, rng: np.random.Generator) -> Scene:
    """An image with an object of each positive class, and the others as far as there is room."""
    while True:
        scene = Scene(settings, rng, PEN)
        first, more = image.annotated[: image.positives], image.annotated[image.positives :]
        if all(scene.add(k, names[k], faces_of(names[k])) for k in first):
            break
    others = [(k, True) for k in more] + [(k, False) for k in image.untold]
    for i in rng.permutation(len(others)):
        k, told = others[i]
        scene.add(k if told else ~k, names[k], faces_of(names[k]))
    return scene


@dataclasses.dataclass(frozen=True)
class _Block:
    """Images that one process draws: the `first` one of a split and those after it."""

    folder: Path
    split: str
    first: int
    images: list[Planned]
    names: str
    settings: LvisGlyphSettings

    @property
    def entries(self) -> Path:
        """There when all the pictures are."""
        return self.folder / "blocks" / f"{self.split}_{self.first:08d}.json"


def _draw_block(block: _Block) -> int:
    """Write the pictures, then their entries; returns how many they are."""
    drawn = []
    for number, image in enumerate(block.images, block.first):
        rng = np.random.default_rng((block.settings.seed, SPLITS.index(block.split), number))
        scene = _drawn(image, block.names, block.settings, rng)
        entry = write_image(
            block.folder,
            block.split,
            number,
            scene.picture(),
            negatives=image.negatives,
            not_exhaustive=image.not_exhaustive,
        )
        annotated = [(k, mask) for k, mask in scene.visible() if k >= 0]
        drawn.append((entry, [annotation_entry(0, block.split, entry["id"], k, mask) for k, mask in annotated]))
    replace_text(block.entries, json.dumps(drawn))
    return len(block.images)


def generate(
    folder: str | os.PathLike, settings: LvisGlyphSettings = LvisGlyphSettings(), workers: int | None = None
) -> None:
    """Write annotations_train.json, annotations_val.json and images/ into `folder`, unless they are there already.

    Drawn into a folder beside it, which is renamed at the end. What an interruption leaves there is gone on with.

    Args:
      folder: of this set alone.
      settings: what is drawn.
      workers: processes; None for one per core. The bytes do not depend on it.

    Raises:
      UserError: the folder holds something else, other data or glyphs of another recipe; or a process was killed.
    """
    folder, wanted = Path(folder), recipe(VERSION, settings)
    if is_drawn(folder, wanted):
        return
    partial = folder.with_name(folder.name + ".partial")
    _open_partial(partial, wanted)
    names = characters(settings.seed)
    blocks = []
    for split in SPLITS:
        images = planned_images(settings, split)
        for first in range(0, len(images), BLOCK):
            blocks.append(_Block(partial, split, first, images[first : first + BLOCK], names, settings))
    _draw(blocks, workers or os.cpu_count() or 1, folder.name)
    parts = {split: _joined([block for block in blocks if block.split == split]) for split in SPLITS}
    categories = category_entries(names, parts["train"]["annotations"], groups().tolist())
    for split, part in parts.items():
        (partial / f"annotations_{split}.json").write_text(json.dumps({**part, "categories": categories}))
    shutil.rmtree(partial / "blocks")
    partial.rename(folder)


def _open_partial(partial: Path, wanted: str) -> None:
    """The folder that an interruption left, if it is of the same recipe; else an empty one."""
    marker = partial / MARKER
    if not (marker.is_file() and marker.read_text() == wanted and (partial / "blocks").is_dir()):
        shutil.rmtree(partial, ignore_errors=True)
        for name in ("blocks", *(f"images/{split}" for split in SPLITS)):
            (partial / name).mkdir(parents=True)
        replace_text(marker, wanted)
    for unfinished in (partial / "blocks").glob("*.partial*"):
        unfinished.unlink()


def _draw(blocks: Sequence[_Block], workers: int, name: str) -> None:
    """Draw the blocks that are not there yet."""
    todo = [block for block in blocks if not block.entries.is_file()]
    total, left = (sum(len(block.images) for block in some) for some in (blocks, todo))
    with Counter(total, f"draw {name}", "image", initial=total - left) as bar:
        if min(workers, len(todo)) <= 1:
            for block in todo:
                bar.update(_draw_block(block))
            return
        with WorkerPool(min(workers, len(todo))) as pool:
            try:
                for future in concurrent.futures.as_completed([pool.submit(_draw_block, block) for block in todo]):
                    bar.update(future.result())
            except BrokenProcessPool:
                raise UserError(
                    f"{blocks[0].folder}: a process that draws was killed, perhaps for want of memory: start again "
                    "(what is drawn is kept)"
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _joined(blocks: Sequence[_Block]) -> dict[str, list[dict[str, Any]]]:
    """Images and annotations of a split; the annotations' ids count on from block to block."""
    images, annotations = [], []
    for block in blocks:
        for image, of_image in json.loads(block.entries.read_text()):
            images.append(image)
            for annotation in of_image:
                annotations.append({**annotation, "id": annotation["id"] + len(annotations)})
    return {"images": images, "annotations": annotations}
