"""One pass over a json and its pictures: what is suspect where, and which pictures to show."""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from c2am_jax.browse.files import look
from c2am_jax.browse.suspects import KINDS, RANK, Finding, Thing, suspects_of
from c2am_jax.data.entries import has_mask
from c2am_jax.data.jpeg import TOO_LARGE, ImageFault, check_size
from c2am_jax.data.json_stream import open_json
from c2am_jax.data.lvis import ImageNotFound, find_image
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.scanned import ImageEntry, Scan
from c2am_jax.data.truth_columns import Truths
from c2am_jax.errors import UserError
from c2am_jax.progress import Counter
from c2am_jax.wording import sides

ORDINARY = 0.25  # of the pictures shown, for those without a suspect and for classes that no other shows


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the json: its entry, its file if it is there, its objects and what is suspect about it."""

    entry: ImageEntry
    path: Path | None
    things: list[Thing]
    findings: list[Finding]

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width that the json says."""
        return self.entry.height, self.entry.width

    @property
    def drawable(self) -> bool:
        """Whether there is a readable file."""
        return not any(finding.kind in ("missing", "unreadable", "too_large") for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found in a json of N pictures and K classes.

    Attributes:
      scan: of the json, with all usable annotations in `truths`.
      found: kinds and how many of each, by place of the picture; only pictures with a suspect.
      masks: objects that have one.
      crowds: crowd regions.
      first_of_file: image id that a file stands under first.
    """

    scan: Scan
    folder: Path
    found: dict[int, dict[str, int]]
    masks: int
    crowds: int
    first_of_file: dict[Path, int]

    @property
    def truths(self) -> Truths:
        """All usable annotations, crowds too."""
        assert self.scan.truths is not None
        return self.scan.truths

    @property
    def boxes_only(self) -> bool:
        """Whether there are objects and none has a mask."""
        return not self.masks and len(self.truths.id) > self.crowds

    def picture(self, place: int) -> Picture:
        """The picture at this place of the json, read again: memory holds none."""
        with open_json(self.scan.path) as file:
            made = _examined(self.scan, place, _rows(self.truths.image, place), self.folder, self.first_of_file, file)
        keys = self.found.get(place, {})
        return dataclasses.replace(made, findings=[finding for finding in made.findings if finding.kind in keys])

    def counts(self) -> dict[str, tuple[int, int]]:
        """How often each kind of suspect was found, and in how many pictures; the worst kinds first."""
        totals: dict[str, list[int]] = {}
        for kinds in self.found.values():
            for key, count in kinds.items():
                total = totals.setdefault(key, [0, 0])
                total[0] += count
                total[1] += 1
        return {kind.key: (totals[kind.key][0], totals[kind.key][1]) for kind in KINDS if kind.key in totals}

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and objects of each class, crowds too: two int64 [K]."""
        k = len(self.scan.categories)
        pairs = np.unique(self.truths.image.astype(np.int64) * k + self.truths.label)
        return np.bincount(pairs % k, minlength=k), np.bincount(self.truths.label, minlength=k)


def _rows(image: np.ndarray, place: int) -> np.ndarray:
    return np.flatnonzero(image == place)


def survey(annotations: str, folder: Path) -> Survey:
    """Look at every picture and object once.

    Raises:
      AnnotationError: the json is not usable.
      UserError: not one of its pictures is in the folder.
    """
    found = scan(annotations, scoring=True)
    found.require_images()
    assert found.truths is not None
    order = np.argsort(found.truths.image, kind="stable")
    starts = np.searchsorted(found.truths.image[order], np.arange(len(found.images) + 1))
    suspects: dict[int, dict[str, int]] = {}
    first_of_file: dict[Path, int] = {}
    masks = crowds = 0
    with (
        open_json(found.path) as file,
        Counter(len(found.images), f"look at {Path(annotations).name}", "picture") as bar,
    ):
        for place in range(len(found.images)):
            rows = order[starts[place] : starts[place + 1]]
            picture = _examined(found, place, rows, folder, first_of_file, file)
            masks += sum(has_mask(thing.entry) for thing in picture.things)
            crowds += sum(thing.crowd for thing in picture.things)
            if picture.findings:
                suspects[place] = dict(collections.Counter(finding.kind for finding in picture.findings))
            bar.update()
    if all("missing" in suspects.get(place, ()) for place in range(len(found.images))):
        first = found.images[0].file_name or found.images[0].coco_url
        raise UserError(
            f"{folder} has none of the pictures that {found.name} names, for example {first}: name their folder"
        )
    if not masks:  # a json of boxes: nothing is missing at the single object
        for kinds in suspects.values():
            kinds.pop("no_mask", None)
    suspects = {place: kinds for place, kinds in suspects.items() if kinds}
    return Survey(found, folder, suspects, masks, crowds, first_of_file)


def _examined(
    found: Scan, place: int, rows: np.ndarray, folder: Path, first_of_file: dict[Path, int], file: BinaryIO
) -> Picture:
    """A picture with all that is suspect; `first_of_file` learns its file."""
    entry, truths = found.images[place], found.truths
    assert truths is not None
    hw = entry.height, entry.width
    things = []
    for row in rows:
        file.seek(int(truths.offset[row]))
        said = json.loads(file.read(int(truths.length[row])))
        things.append(Thing(said, int(truths.label[row]), truths.box[row]))
    path, findings = _file_findings(entry, hw, folder, first_of_file)
    if things and all(thing.crowd for thing in things):
        findings.append(Finding("crowds", None, "crowd regions only"))
    return Picture(entry, path, things, findings + suspects_of(things, hw))


def _file_findings(
    entry: ImageEntry, hw: tuple[int, int], folder: Path, first_of_file: dict[Path, int]
) -> tuple[Path | None, list[Finding]]:
    try:
        file = find_image(entry._asdict(), folder)
    except ImageNotFound as error:
        return None, [Finding("missing", None, str(error))]
    path, found = Path(file.path), []
    if file.elsewhere:
        found.append(Finding("elsewhere", None, f"found as {path}"))
    first = first_of_file.setdefault(path.resolve(), entry.id)
    if first != entry.id:
        found.append(Finding("same_file", None, f"the file of image {first}"))
    try:
        check_size(hw)  # as training does: before the file is opened
        seen = look(path)
    except (ImageFault, OSError) as error:
        kind = "too_large" if isinstance(error, ImageFault) and error.reason == TOO_LARGE else "unreadable"
        return path, [*found, Finding(kind, None, str(error))]
    turn = seen.turn_for(hw)
    if turn is None:
        found.append(Finding("size", None, f"the file has {sides(seen.upright)}, the json says {sides(hw)}"))
    elif seen.orientation != 1:
        drawn = "the turned picture" if turn == seen.orientation else "it as it is stored"
        found.append(Finding("turned", None, f"EXIF orientation {seen.orientation}; annotations fit {drawn}"))
    return path, found


def chosen(
    found: Mapping[int, Mapping[str, int]], classes: Sequence[set[int]], most: int
) -> tuple[list[int], list[int]]:
    """Which pictures to show: those with suspects, worst first, and ordinary ones.

    Kinds of suspects take turns, so that each is shown, and a quarter of the places is for pictures without a suspect,
    if there are any: first those with classes that no other shows, then an even spread.

    Args:
      found: as in `Survey`.
      classes: of each picture.
      most: pictures in all.

    Returns:
      Places of pictures with suspects, and of the others.
    """
    ordinary = [place for place in range(len(classes)) if place not in found]
    room = most - min(round(most * ORDINARY), len(ordinary))
    ranked = sorted(found, key=lambda place: (*_worst(found[place]), place))
    queues = [[place for place in ranked if kind.key in found[place]] for kind in KINDS]
    suspects: dict[int, None] = {}
    while any(queues) and len(suspects) < room:
        for queue in queues:
            while queue and queue[0] in suspects:
                queue.pop(0)
            if queue and len(suspects) < room:
                suspects[queue.pop(0)] = None
    left = most - len(suspects)
    shown = set().union(*(classes[place] for place in suspects))
    plain: dict[int, None] = {}
    for place in sorted(ordinary, key=lambda place: -len(classes[place])):
        if len(plain) < left and classes[place] - shown:
            shown |= classes[place]
            plain[place] = None
    rest = [place for place in ordinary if place not in plain]
    for at in np.linspace(0, len(rest) - 1, min(left - len(plain), len(rest))).round().astype(int):
        plain[rest[at]] = None
    return sorted(suspects, key=ranked.index), sorted(plain)


def _worst(kinds: Mapping[str, int]) -> tuple[int, int]:
    """Sorts what is worse first."""
    return min(RANK[key] for key in kinds), -sum(kinds.values())
