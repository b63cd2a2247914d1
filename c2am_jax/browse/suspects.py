"""What looks wrong with a picture or an object of an annotation json, and what that means to a person who made it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from c2am_jax.data.box_masks import BadMask, runs_and_box
from c2am_jax.data.boxes import FITS, MIN_SIDE, beyond, iou, suspicion
from c2am_jax.data.entries import has_mask
from c2am_jax.data.jpeg import MAX_PIXELS
from c2am_jax.wording import noun

MASK_SLACK = 2.0  # pixels that the two may differ by, however small they are
TINY = 4.0  # pixels
TWINS = 0.95  # IoU


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of suspect.

    Attributes:
      key: its name in the page.
      title: what is counted, in the plural.
      meaning: what it may mean, what training does with it, and what to do.
      counts: "picture" or "object".
    """

    key: str
    title: str
    meaning: str
    counts: str = "object"


# The worst first: what makes whole files wrong, then what is lost in training, then what only looks odd.
KINDS = (
    Kind(
        "missing",
        "picture files that are not there",
        "The json names a file that is not in the folder. Training leaves these pictures out. Look at --images and at "
        "'file_name' in the json.",
        "picture",
    ),
    Kind(
        "unreadable",
        "picture files that cannot be read",
        "The file is damaged, cut off or no picture, or has 32 bits of grey. Training leaves it out. The reason stands "
        "at each.",
        "picture",
    ),
    Kind(
        "too_large",
        f"pictures that are too large: more than {MAX_PIXELS // 10**6} megapixels",
        "Training leaves them out, and they are not drawn. Make the picture smaller, and its boxes and masks with it.",
        "picture",
    ),
    Kind(
        "corners",
        "boxes that look like x1, y1, x2, y2",
        "'bbox' must be x, y, width, height. These fit much better if the last two numbers are a corner. If there are "
        "many, the whole json is likely to be so: write width = x2 - x1 and height = y2 - y1.",
    ),
    Kind(
        "size",
        "pictures of another size than the json says",
        "Boxes and masks may belong to a larger or smaller copy of the picture. They are drawn on the picture as if it "
        "had the size in the json. Training leaves it out. Correct 'width' and 'height', or take the pictures that "
        "were annotated.",
        "picture",
    ),
    Kind(
        "unusable_mask",
        "masks that cannot be used",
        "The object does not train. The reason stands at each: for example a polygon of two points, or run lengths of "
        "another picture size.",
    ),
    Kind(
        "mask_box",
        "boxes that do not fit their mask",
        "The box around the mask and 'bbox' overlap by less than half. One of the two belongs to another object, or to "
        "another size of the picture.",
    ),
    Kind(
        "degenerate",
        "boxes of less than a pixel, or wholly outside",
        "The object does not train. Its width or height is below 1, or nothing of it is inside the picture.",
    ),
    Kind(
        "outside",
        "boxes that reach outside their picture",
        "Training cuts them at the border. Grey is drawn around the picture to show them. Many of these often mean "
        "that boxes belong to another size of the picture.",
    ),
    Kind(
        "crowds",
        "pictures that have crowd regions only",
        "Objects with 'iscrowd': 1 do not train, and scoring ignores them. If these are single objects, write "
        "'iscrowd': 0.",
        "picture",
    ),
    Kind(
        "twins",
        "objects that are there twice",
        "Two objects of one class have nearly the same box. One of them may be a slip.",
    ),
    Kind(
        "no_mask",
        "objects without a mask, where others have one",
        "The object does not train. At scoring its box counts, and no mask matches it.",
    ),
    Kind(
        "same_file",
        "pictures whose file another image id has too",
        "One file stands under two image ids. Their objects may belong to one image, or one of the two ids to another "
        "file.",
        "picture",
    ),
    Kind(
        "elsewhere",
        "picture files in another folder than the json says",
        "The file was found by its name alone. If two folders have a file of this name, it may be the wrong one.",
        "picture",
    ),
    Kind(
        "turned",
        "pictures that are stored turned (EXIF)",
        "A camera wrote 'turn this picture' into the file. It is drawn here as the annotations fit its size. Look "
        "whether the boxes lie on the objects.",
        "picture",
    ),
    Kind(
        "tiny",
        f"objects narrower or lower than {TINY:g} pixels",
        "Too small to be learnt from, and often a slip of the mouse.",
    ),
)
RANK = {kind.key: place for place, kind in enumerate(KINDS)}


class Finding(NamedTuple):
    """Something suspect: the key of its kind, the place of the object in its picture (or None), and what."""

    kind: str
    place: int | None
    text: str


class Thing(NamedTuple):
    """An annotated object: its entry in the json, its class, and its box x, y, width, height."""

    entry: Mapping[str, Any]
    label: int
    box: np.ndarray

    @property
    def crowd(self) -> bool:
        """Whether it is a crowd region."""
        return bool(self.entry.get("iscrowd"))

    @property
    def corners(self) -> np.ndarray:
        """The box as x1, y1, x2, y2."""
        return np.concatenate([self.box[:2], self.box[:2] + self.box[2:]])


def suspects_of(things: Sequence[Thing], hw: tuple[int, int]) -> list[Finding]:
    """What looks wrong with the objects of a picture of this height and width; crowd regions are not looked at."""
    found: list[Finding] = []
    for place, thing in enumerate(things):
        if not thing.crowd:
            found += [Finding(kind, place, text) for kind, text in _suspect(thing, hw)]
    return found + _twins(things)


def _suspect(thing: Thing, hw: tuple[int, int]) -> list[tuple[str, str]]:
    """Kinds and texts for one object."""
    found = []
    mask_box, fault = _mask_box(thing, hw)
    if not has_mask(thing.entry):
        found.append(("no_mask", "no mask"))
    elif fault:
        found.append(("unusable_mask", fault))
    kind = suspicion(thing.entry, None if mask_box is None else mask_box.tolist(), hw)
    if kind == "corners":
        read = ", ".join(f"{value:g}" for value in thing.box)
        return [*found, ("corners", f"bbox {read} looks like x1, y1, x2, y2")]
    if kind == "degenerate":
        small = thing.box[2:].min() < MIN_SIDE
        text = f"box of {thing.box[2]:g} x {thing.box[3]:g} pixels" if small else "box lies outside the picture"
        return [*found, ("degenerate", text)]
    if kind == "outside":
        reach = beyond(thing.box.tolist(), hw)
        most, side = round(max(reach)), ("left", "top", "right", "bottom")[int(np.argmax(reach))]
        found.append(("outside", f"box reaches {most} {noun(most, 'pixel')} outside, {side}"))
    if mask_box is not None:
        inside = np.clip(thing.corners, 0, [hw[1], hw[0]] * 2)
        overlap = iou(inside.tolist(), mask_box.tolist())
        if overlap < FITS and np.abs(inside - mask_box).max() > MASK_SLACK:
            found.append(("mask_box", f"box and the box of its mask have an IoU of {overlap:.2f}"))
    if thing.box[2:].min() < TINY:
        found.append(("tiny", f"{thing.box[2]:.3g} x {thing.box[3]:.3g} pixels"))
    return found


def _mask_box(thing: Thing, hw: tuple[int, int]) -> tuple[np.ndarray | None, str]:
    """Corners of the box around the mask, or why there is none."""
    try:
        return np.array(runs_and_box(thing.entry.get("segmentation"), hw)[1]), ""
    except BadMask as error:
        return None, str(error)


def _twins(things: Sequence[Thing]) -> list[Finding]:
    """Objects that an earlier one of the same class covers almost exactly."""
    kept = [place for place, thing in enumerate(things) if not thing.crowd and thing.box[2:].min() > 0]
    if len(kept) < 2:
        return []
    boxes = np.array([things[place].corners for place in kept])
    labels = np.array([things[place].label for place in kept])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    found = []
    for second in range(1, len(kept)):
        first = boxes[:second]
        common = np.prod(
            np.maximum(np.minimum(first[:, 2:], boxes[second, 2:]) - np.maximum(first[:, :2], boxes[second, :2]), 0), 1
        )
        same = (common > TWINS * (area[:second] + area[second] - common)) & (labels[:second] == labels[second])
        if same.any():
            other = things[kept[int(same.argmax())]].entry["id"]
            found.append(Finding("twins", kept[second], f"nearly the same box as annotation {other}"))
    return found
