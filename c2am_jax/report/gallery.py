"""Pictures of single objects for the page: on the left what is annotated, on the right what was detected."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from c2am_jax.data.jpeg import ImageFault
from c2am_jax.data.json_stream import read_lists
from c2am_jax.data.lvis import CategoryTable, ImageNotFound, image_file
from c2am_jax.data.pictures import read_picture
from c2am_jax.evaluation.ap_matching import Problem
from c2am_jax.evaluation.lvis_ap import Evidence
from c2am_jax.frequency import GROUPS
from c2am_jax.report.inspection import KINDS, Candidate
from c2am_jax.report.objects import Objects, Thing, opened
from c2am_jax.visualization.draw import draw
from c2am_jax.visualization.embedded import data_uri
from c2am_jax.visualization.names import readable

_LOG = logging.getLogger(__name__)
PER_KIND = 18
BYTES = 8_000_000  # of all pictures together, as they stand in the page
SIDE = 300  # longest side of each half, pixels
LARGEST_ZOOM = 4
AROUND = 0.4  # of the object's longer side, shown on each side of it
GAP = 6

ImageReader = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture and what it shows.

    Attributes:
      source: data URI of a JPEG.
      size: width and height.
      category: name of the category that it stands for.
      group: its frequency.
      caption: the rest of what is to be said.
    """

    source: str
    size: tuple[int, int]
    category: str
    group: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures by kind, and how many candidates have no readable image."""

    pictures: dict[str, list[Picture]]
    unreadable: int


def folder_images(annotations: str | Path, folder: str | Path) -> Callable[[set[int]], ImageReader]:
    """Reader of the images of a LVIS json; only the names of the images asked for are kept."""

    def reader(wanted: set[int]) -> ImageReader:
        entries: dict[int, Mapping[str, Any]] = {}

        def take(image: Any, *_: int) -> None:
            if isinstance(image, dict) and image.get("id") in wanted:
                entries[image["id"]] = image

        with open(annotations, "rb") as file:
            read_lists(file, str(annotations), {"images": take})

        def read(image_id: int) -> np.ndarray:
            entry = entries[image_id]
            return read_picture(Path(image_file(entry, folder)), exact=False, hw=(entry["height"], entry["width"]))

        return read

    return reader


def chosen(by_category: Mapping[int, Sequence[Candidate]], categories: CategoryTable, most: int) -> list[Candidate]:
    """The best candidates: rare, common and frequent categories in turns, other categories and images first.

    Args:
      by_category: candidates of each, best first.
      categories: row k is class k.
      most: how many.
    """
    queues: list[list[Candidate]] = []
    for letter in GROUPS:
        ranked: list[tuple[int, Candidate]] = []
        for label in categories.group(letter).tolist():
            ranked += list(enumerate(by_category.get(label, ())))
        queues.append([candidate for _, candidate in sorted(ranked, key=lambda r: (r[0], -r[1].quality))])
    found: list[Candidate] = []
    images: set[int] = set()
    while any(queues) and len(found) < most:
        for queue in queues:
            if queue and len(found) < most:
                fresh = next((i for i, c in enumerate(queue) if c.image not in images), 0)
                found.append(queue.pop(fresh))
                images.add(found[-1].image)
    return found


def make_gallery(
    evidence: Evidence,
    masks: Problem,
    categories: CategoryTable,
    candidates: Mapping[str, Mapping[int, Sequence[Candidate]]],
    images: Callable[[set[int]], ImageReader],
    *,
    most: int = PER_KIND,
    budget: int = BYTES,
) -> Gallery:
    """Draw the chosen candidates; kinds take turns until the budget is spent.

    Args:
      evidence: whose rows the candidates name.
      masks: where the same rows have their masks; a results file without masks gives boxes only.
      categories: row k is class k.
      candidates: of `inspect`.
      images: from the ids of the images needed to a reader, uint8 [h, w, 3] at the annotations' size.
      most: pictures of a kind.
      budget: bytes of all data URIs.
    """
    waiting = {kind: chosen(candidates[kind], categories, most) for kind in KINDS}
    wanted = {int(evidence.image_ids[c.image]) for queue in waiting.values() for c in queue}
    read = images(wanted) if wanted else None
    pictures: dict[str, list[Picture]] = {kind: [] for kind in KINDS}
    spent = unreadable = 0
    with opened(evidence, masks) as objects:
        painter = _Painter(objects, categories)
        for kind, candidate in _in_turns(waiting):
            assert read is not None
            image_id = int(evidence.image_ids[candidate.image])
            try:
                pixels = read(image_id)
                hw = tuple(int(side) for side in masks.image_hw[candidate.image])
                if pixels.shape[:2] != hw:
                    raise ImageFault("size", f"is {pixels.shape[:2]}, its annotations say {hw}")
            except (ImageFault, ImageNotFound, OSError) as fault:
                _LOG.warning("no picture of image %d: %s", image_id, fault)
                unreadable += 1
                continue
            picture = painter.picture(kind, candidate, pixels)
            spent += len(picture.source)
            if spent > budget:
                break
            pictures[kind].append(picture)
    return Gallery(pictures, unreadable)


def _in_turns(waiting: Mapping[str, Sequence[Candidate]]) -> Iterator[tuple[str, Candidate]]:
    for place in range(max(map(len, waiting.values()))):
        for kind, queue in waiting.items():
            if place < len(queue):
                yield kind, queue[place]


class _Painter:
    """Draws candidates."""

    def __init__(self, objects: Objects, categories: CategoryTable):
        self._objects, self._categories = objects, categories

    def picture(self, kind: str, candidate: Candidate, pixels: np.ndarray) -> Picture:
        truth = self._objects.truth(candidate.truth) if candidate.truth >= 0 else None
        detection = self._objects.detection(candidate.detection) if candidate.detection >= 0 else None
        things = [thing for thing in (truth, detection) if thing]
        region = _region(np.array([thing.box for thing in things]), pixels.shape[:2])
        halves = [self._half(pixels, region, thing, scored) for thing, scored in ((truth, False), (detection, True))]
        gap = np.full((halves[0].shape[0], GAP, 3), 128, np.uint8)
        whole = np.concatenate([halves[0], gap, halves[1]], 1)
        names = self._categories
        caption = _caption(kind, candidate, truth, detection, names.names)
        group = names.frequency[candidate.label]
        size = whole.shape[1], whole.shape[0]
        return Picture(data_uri(whole), size, names.names[candidate.label], group, caption)

    def _half(
        self, pixels: np.ndarray, region: tuple[int, int, int, int], thing: Thing | None, scored: bool
    ) -> np.ndarray:
        left, top, right, bottom = region
        crop = Image.fromarray(pixels[top:bottom, left:right])
        zoom = min(SIDE / max(crop.size), LARGEST_ZOOM)
        size = max(1, round(crop.width * zoom)), max(1, round(crop.height * zoom))
        resized = np.asarray(crop.resize(size, Image.Resampling.BICUBIC))
        if thing is None:
            return resized
        box = (thing.box - [left, top, left, top]) * zoom
        masks = None
        if thing.mask is not None:
            mask = Image.fromarray(thing.mask[top:bottom, left:right])
            masks = [np.asarray(mask.resize(size, Image.Resampling.NEAREST))]
        scores = [thing.score] if scored else None
        return draw(resized, box[None], [thing.label], scores, masks, names=self._categories.names)


def _region(found: np.ndarray, hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is shown: all boxes and something around them, inside the image."""
    low, high = found[:, :2].min(0), found[:, 2:].max(0)
    margin = max(8.0, AROUND * float((high - low).max()))
    left, top = (max(0, int(v)) for v in np.floor(low - margin))
    right, bottom = (int(v) for v in np.minimum(np.ceil(high + margin), [hw[1], hw[0]]))
    left, top = min(left, hw[1] - 1), min(top, hw[0] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _caption(
    kind: str, candidate: Candidate, truth: Thing | None, detection: Thing | None, names: Sequence[str]
) -> str:
    overlap = f"box IoU {candidate.overlap:.2f}"
    if truth and detection and truth.mask is not None and detection.mask is not None:
        common, either = (truth.mask & detection.mask).sum(), (truth.mask | detection.mask).sum()
        overlap += f", mask IoU {common / max(either, 1):.2f}"
    if kind == "missed":
        if detection is None:
            return "nothing detected there"
        return f"seen as {readable(names[detection.label])}, score {detection.score:.2f}, {overlap}"
    assert detection is not None
    if kind == "false":
        if truth is None:
            return f"score {detection.score:.2f}, no annotated object there"
        return f"score {detection.score:.2f}, on an object annotated as {readable(names[truth.label])}, {overlap}"
    return f"score {detection.score:.2f}, {overlap}"
