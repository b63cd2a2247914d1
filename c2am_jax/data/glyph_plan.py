"""What each image of `glyphs_lvis` shows and which of it is annotated: LVIS's federated protocol at its own rates.

An image says for few classes whether they are there. Its positive classes are annotated, all their objects unless the
class is flagged as not exhaustive; its negative classes are verified to be absent. Of all others nothing is said,
and some of their objects are there without annotation. Source: Gupta, Dollar, Girshick, LVIS, CVPR 2019, Section 3.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from c2am_jax.data.glyph_layout import spread
from c2am_jax.frequency import GROUPS

# Counted in the first 100 images of LVIS's validation set, lvis_val_100.json of github.com/lvis-dataset/lvis-api:
# (image, class) pairs verified absent, pairs that are annotated, and of these pairs flagged as not exhaustive.
ABSENT = {"r": 161, "c": 441, "f": 340}
PRESENT = {"r": 1, "c": 31, "f": 267}
FLAGGED = {"r": 0, "c": 1, "f": 15}
OBJECTS_OF_PAIR = (150, 61, 22, 66)  # pairs with 1, 2, 3, and 4 or more annotated objects
UNEVEN = 6.0  # positive classes that one image has more than another, at most
UNTOLD = 2  # most objects without annotation that a flagged pair has


@dataclasses.dataclass
class Planned:
    """One image; classes are 0 .. K-1.

    Attributes:
      annotated: class of every object that gets an annotation; the first of each class come first.
      positives: how many classes that is, which all have to find a place.
      untold: class of every object without annotation: of flagged classes, and of those that nothing is said of.
      negatives: classes that are not there.
      not_exhaustive: classes with objects in `untold`.
    """

    annotated: list[int]
    positives: int
    untold: list[int] = dataclasses.field(default_factory=list)
    negatives: list[int] = dataclasses.field(default_factory=list)
    not_exhaustive: list[int] = dataclasses.field(default_factory=list)


def plan(
    counts: np.ndarray,
    groups: np.ndarray,
    images: int,
    rng: np.random.Generator,
    *,
    objects: int,
    unverified: float,
    occurrence: np.ndarray,
) -> list[Planned]:
    """The images of a split.

    Args:
      counts: images in which each class is annotated, int [K].
      groups: the classes' letters, str [K].
      images: how many there are.
      rng: what is drawn from.
      objects: most in an image.
      unverified: probability that an image has an object of a class that nothing is said of there.
      occurrence: float [K], how often each class is such an object, relative to the others.

    Raises:
      ValueError: too few images for so many classes and objects.
    """
    planned = [Planned(classes, len(classes)) for classes in spread(counts, images, rng, UNEVEN)]
    if max(image.positives for image in planned) > objects:
        raise ValueError(f"{counts.sum()} pairs of image and class do not fit {images} images of {objects} objects")
    flagged = _by_letter(FLAGGED, PRESENT)
    cumulative = np.cumsum(occurrence / occurrence.sum())
    for image in planned:
        _fill(image, groups, flagged, objects, rng)
        if rng.random() < unverified and len(image.annotated) + len(image.untold) < objects:
            k = int(np.searchsorted(cumulative, rng.random(), side="right"))
            if k not in image.annotated:
                image.untold.append(k)
    _add_negatives(planned, counts, groups, rng)
    return planned


def _by_letter(part: Mapping[str, int], of: Mapping[str, int]) -> dict[str, float]:
    return {letter: part[letter] / of[letter] for letter in GROUPS}


def _fill(
    image: Planned, groups: np.ndarray, flagged: Mapping[str, float], objects: int, rng: np.random.Generator
) -> None:
    """Draw which classes are flagged and how many objects each has, as far as there is room."""
    classes, room = list(image.annotated), objects - image.positives
    for k in classes:
        if room and rng.random() < flagged[groups[k]]:
            untold = min(int(rng.integers(1, UNTOLD + 1)), room)
            room -= untold
            image.not_exhaustive.append(k)
            image.untold += [k] * untold
    shares = np.cumsum(OBJECTS_OF_PAIR) / sum(OBJECTS_OF_PAIR)
    for k in classes:
        more = min(int(np.searchsorted(shares, rng.random(), side="right")), room)
        room -= more
        image.annotated += [k] * more


def _add_negatives(planned: list[Planned], counts: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> None:
    """Verify each class absent in as many of the images without it as its group's rate says."""
    rates = _by_letter(ABSENT, PRESENT)
    there = np.zeros((len(counts), len(planned)), bool)
    for i, image in enumerate(planned):
        there[image.annotated + image.untold, i] = True
    for k, count in enumerate(counts):
        free = np.flatnonzero(~there[k])
        for i in rng.permutation(free)[: round(rates[groups[k]] * int(count))]:
            planned[i].negatives.append(k)
