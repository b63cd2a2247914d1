"""Which image, at which size, in which step: numpy functions of (seed, epoch), the same in every process.

One epoch: images are repeated by the sampler, shuffled, each occurrence draws its size and flip, occurrences of
one padded shape ("bucket") form the batches, the batches are shuffled. Nothing depends on devices or workers.
"""

import dataclasses

import numpy as np

from c2am_jax.data.builder import PreparedDataset
from c2am_jax.errors import UserError

SAMPLERS = ("random", "repeat_factor", "repeat_factor_stochastic")


class WrongSetting(UserError, ValueError):
    """A value of `config.data` that cannot be used; the text begins with its name."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How occurrences draw their size: short side from `short_sides`, long side at most `max_side`, into a bucket."""

    short_sides: tuple[int, ...]
    max_side: int
    flip_probability: float
    buckets: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """One global batch: image indices [N], sizes after resizing [N, 2], flips [N], and the padded shape of all.

    Index -1 only fills up the batch.
    """

    index: np.ndarray
    target_hw: np.ndarray
    flip: np.ndarray
    bucket: tuple[int, int]


def repeat_factors(
    label: np.ndarray, label_offset: np.ndarray, num_classes: int, *, threshold: float = 1e-3
) -> np.ndarray:
    """Repeat factor r(I) = max over its classes of max(1, sqrt(threshold / f_c)): float [N] (LVIS paper, appendix B).

    f_c is the share of images that contain class c, among the images with at least one annotation. Images without
    annotations get 1.
    """
    counts = np.diff(label_offset)
    image = np.repeat(np.arange(len(counts)), counts)
    pairs = np.unique(np.stack([image, label]), axis=1)
    frequency = np.bincount(pairs[1], minlength=num_classes) / max((counts > 0).sum(), 1)
    category = category_repeat_factors(frequency, threshold=threshold)
    factors = np.ones(len(counts))
    np.maximum.at(factors, pairs[0], category[pairs[1]])
    return factors


def category_repeat_factors(frequency: np.ndarray, *, threshold: float = 1e-3) -> np.ndarray:
    """max(1, sqrt(threshold / f_c)); 1 for classes that never occur."""
    return np.where(frequency > 0, np.maximum(1, np.sqrt(threshold / np.maximum(frequency, 1e-12))), 1.0)


def target_size(hw: np.ndarray, short_side: np.ndarray | int, max_side: int) -> np.ndarray:
    """Size after resizing: short side to `short_side` unless the long one would exceed `max_side`; int [..., 2].

    Reference rule: both sides are ``int(side * scale + 0.5)``.
    """
    hw = np.asarray(hw, np.float64)
    scale = np.minimum(max_side / hw.max(-1), short_side / hw.min(-1))
    return (hw * scale[..., None] + 0.5).astype(np.int32)


def fitting_bucket(target_hw: np.ndarray, buckets: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Index of the smallest bucket that holds each size [N, 2].

    Raises:
      WrongSetting: a size fits in none; the text names the settings to change.
    """
    shapes = np.asarray(buckets)
    area = np.where((target_hw[:, None] <= shapes).all(-1), shapes.prod(-1), np.iinfo(np.int64).max)
    chosen = area.argmin(1)
    lost = np.flatnonzero((target_hw > shapes[chosen]).any(-1))
    if len(lost):
        height, width = target_hw[lost[0]]
        raise WrongSetting(
            f"data.buckets: none of the padded shapes {buckets} holds an image resized to {height}x{width}: add one or "
            "lower data.short_sides, data.test_short_side and data.max_side"
        )
    return chosen


def _trainable(dataset: PreparedDataset) -> np.ndarray:
    """Images with annotations and sides of at least 32 px (reference filter)."""
    return (np.diff(dataset.label_offset) > 0) & (dataset.image_hw.min(1) >= 32)


def check_buckets(dataset: PreparedDataset, augmentation: Augmentation) -> None:
    """Raises WrongSetting unless every training image fits in a bucket at each of its sizes."""
    hw = dataset.image_hw[_trainable(dataset)]
    for side in augmentation.short_sides:
        fitting_bucket(target_size(hw, side, augmentation.max_side), augmentation.buckets)


def _occurrences(dataset: PreparedDataset, sampler: str, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """Image indices of one epoch, unshuffled."""
    if sampler not in SAMPLERS:
        raise WrongSetting(f"data.sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
    kept = np.flatnonzero(_trainable(dataset))
    if not len(kept):
        raise WrongSetting(f"data: no image of {dataset.folder} is 32 pixels wide and high and has an annotation")
    if sampler == "random":
        return kept
    classes = len(dataset.categories)
    factors = repeat_factors(dataset.label, dataset.label_offset, classes, threshold=threshold)[kept]
    if sampler == "repeat_factor":
        return np.repeat(kept, np.ceil(factors).astype(int))
    whole = np.floor(factors).astype(int)
    return np.repeat(kept, whole + (rng.random(len(kept)) < factors - whole))


def steps_per_epoch(dataset: PreparedDataset, *, sampler: str, threshold: float, batch_size: int) -> int:
    """Nominal steps of an epoch, for schedules: occurrences over batch size, rounded up."""
    occurrences = len(_occurrences(dataset, sampler, threshold, np.random.default_rng(0)))
    return -(-occurrences // batch_size)


def epoch_steps(
    dataset: PreparedDataset,
    *,
    seed: int,
    epoch: int,
    sampler: str,
    threshold: float,
    augmentation: Augmentation,
    batch_size: int,
) -> list[Step]:
    """All steps of an epoch.

    A bucket's last batch is filled up from its own beginning, so every occurrence is seen and at most
    ``batch_size - 1`` per bucket twice.
    """
    rng = np.random.default_rng((seed, epoch))
    index = rng.permutation(_occurrences(dataset, sampler, threshold, rng))
    short = rng.choice(np.asarray(augmentation.short_sides), len(index))
    flip = rng.random(len(index)) < augmentation.flip_probability
    target = target_size(dataset.image_hw[index], short, augmentation.max_side)
    bucket = fitting_bucket(target, augmentation.buckets)
    steps = []
    for shape in np.unique(bucket):
        members = np.flatnonzero(bucket == shape)
        members = np.resize(members, -(-len(members) // batch_size) * batch_size)
        for batch in members.reshape(-1, batch_size):
            steps.append(Step(index[batch], target[batch], flip[batch], augmentation.buckets[shape]))
    return [steps[i] for i in rng.permutation(len(steps))]


def evaluation_steps(
    dataset: PreparedDataset, *, short_side: int, max_side: int, buckets: tuple[tuple[int, int], ...], batch_size: int
) -> list[Step]:
    """Every image once, unflipped, in index order within its bucket; last batches are filled up with index -1."""
    target = target_size(dataset.image_hw, short_side, max_side)
    bucket = fitting_bucket(target, buckets)
    steps = []
    for shape in np.unique(bucket):
        members = np.flatnonzero(bucket == shape)
        members = np.concatenate([members, np.full(-len(members) % batch_size, -1)])
        for batch in members.reshape(-1, batch_size):
            sizes = np.where((batch >= 0)[:, None], target[batch], 1)
            steps.append(Step(batch, sizes, np.zeros(batch_size, bool), buckets[shape]))
    return steps
