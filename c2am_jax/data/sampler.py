"""Which image, at which size, in which step: numpy functions of (seed, epoch), the same in every process.

One epoch: the sampler says which images are shown how often, they are shuffled, each occurrence draws its size, part
and flip, occurrences of one padded shape ("bucket") form the batches, the batches are shuffled. Nothing depends on
devices or workers. What an occurrence draws beyond its shape comes from its key, see `data.augment`.
"""

import dataclasses

import numpy as np

from c2am_jax.checks import WrongSetting
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.errors import UserError
from c2am_jax.wording import sides

SAMPLERS = ("random", "repeat_factor", "repeat_factor_stochastic", "class_aware")
_ROUNDING, _KEYS, _CLASSES, _IMAGES, _HELD_OUT = range(1, 6)  # random streams beside that of the order


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How occurrences draw their size.

    Attributes:
      short_sides, max_side: short side from the list unless the long one would exceed `max_side`: the nominal size.
      flip_probability: of mirroring left-right.
      buckets: padded shapes (H, W).
      scale_jitter: () or (low, high): the nominal size times a uniform factor, cut at random to the nominal size's
        bucket (large-scale jitter; Ghiasi et al. 2021, "Simple Copy-Paste", use 0.1 to 2).
    """

    short_sides: tuple[int, ...]
    max_side: int
    flip_probability: float
    buckets: tuple[tuple[int, int], ...]
    scale_jitter: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """One global batch of N occurrences.

    Attributes:
      index: int [N], images; -1 only fills up the batch.
      window: int32 [N, 4], the part of the image that is shown: top, left, height, width in its own pixels.
      target_hw: int32 [N, 2], the window's size after resizing.
      flip: bool [N].
      key: int64 [N], what the occurrence's other random draws are a function of.
      bucket: padded shape (H, W) of all.
    """

    index: np.ndarray
    window: np.ndarray
    target_hw: np.ndarray
    flip: np.ndarray
    key: np.ndarray
    bucket: tuple[int, int]


def image_frequencies(label: np.ndarray, label_offset: np.ndarray, num_classes: int) -> np.ndarray:
    """f_c [K]: the share of images that contain class c, among the images with at least one annotation."""
    counts = np.diff(label_offset)
    image = np.repeat(np.arange(len(counts)), counts)
    pairs = np.unique(image * num_classes + label)
    return np.bincount(pairs % num_classes, minlength=num_classes) / max((counts > 0).sum(), 1)


def category_repeat_factors(frequency: np.ndarray, *, threshold: float = 1e-3) -> np.ndarray:
    """max(1, sqrt(threshold / f_c)); 1 for classes that never occur."""
    return np.where(frequency > 0, np.maximum(1, np.sqrt(threshold / np.maximum(frequency, 1e-12))), 1.0)


def image_repeat_factors(label: np.ndarray, label_offset: np.ndarray, category_factors: np.ndarray) -> np.ndarray:
    """The largest factor of the classes of each image, [N]; 1 for images without annotations."""
    counts = np.diff(label_offset)
    factors = np.ones(len(counts))
    annotated = np.flatnonzero(counts)
    if len(annotated):
        factors[annotated] = np.maximum.reduceat(category_factors[label], label_offset[annotated])
    return factors


def repeat_factors(
    label: np.ndarray, label_offset: np.ndarray, num_classes: int, *, threshold: float = 1e-3
) -> np.ndarray:
    """r(I) = max over the classes of image I of max(1, sqrt(threshold / f_c)): [N] (LVIS paper, appendix B)."""
    frequency = image_frequencies(label, label_offset, num_classes)
    return image_repeat_factors(label, label_offset, category_repeat_factors(frequency, threshold=threshold))


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
        found = sides(target_hw[lost[0]].tolist())
        raise WrongSetting(
            "config.data.buckets",
            f": none of the padded shapes {buckets} holds an image resized to {found}: add one or lower "
            "data.short_sides, data.test_short_side and data.max_side",
        )
    return chosen


def reduced(hw: np.ndarray, canvas: int, short_side: int, max_side: int) -> tuple[int, int]:
    """How many images [N, 2] lose resolution because they are fitted to the canvas before they are resized.

    An image does if its long side is larger than the canvas, and so is the one that it is resized to.

    Returns:
      Their number, and the side of a canvas in which none would lose any.
    """
    if not len(hw):
        return 0, canvas
    needed = np.minimum(hw.max(-1), target_size(hw, short_side, max_side).max(-1))
    return int((needed > canvas).sum()), max(canvas, int(needed.max()))


def whole(hw: np.ndarray) -> np.ndarray:
    """The window [N, 4] that is all of each image [N, 2]."""
    return np.concatenate([np.zeros_like(hw), hw], -1).astype(np.int32)


def jitter(
    hw: np.ndarray, nominal: np.ndarray, limit: np.ndarray, scale: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Large-scale jitter: the nominal size times `scale`, cut to `limit` where it is larger.

    Args:
      hw: of the images, int [N, 2].
      nominal: size after resizing without jitter, [N, 2].
      limit: (H, W) that the result must fit in, [N, 2].
      scale: [N].
      place: where the part is cut, a share of the room there is, in [0, 1), [N, 2].

    Returns:
      windows int32 [N, 4] in whole pixels of the images, and their sizes after resizing, int32 [N, 2].
    """
    scaled = np.maximum((nominal * scale[:, None] + 0.5).astype(np.int64), 1)
    shown = np.where(scaled > limit, np.maximum(np.rint(hw * limit / scaled), 1), hw).astype(np.int64)
    start = np.floor(place * (hw - shown + 1)).astype(np.int64)
    return np.concatenate([start, shown], -1).astype(np.int32), np.minimum(scaled, limit).astype(np.int32)


def trainable(image_hw: np.ndarray, label_offset: np.ndarray) -> np.ndarray:
    """Images with annotations and sides of at least 32 px (reference filter): indices."""
    return np.flatnonzero((np.diff(label_offset) > 0) & (image_hw.min(1) >= 32))


def held_out_images(dataset: PreparedDataset, share: float) -> np.ndarray:
    """Indices of about `share` of the trainable images, set aside; a function of the data set alone.

    Images are taken in a random order; one of whose classes would keep fewer than two images to train on is passed
    over, so a class of two images or fewer is never measured.
    """
    images = trainable(dataset.image_hw, dataset.label_offset)
    classes_of = [np.unique(dataset.labels_of(i)) for i in images]
    left = np.bincount(np.concatenate([*classes_of, np.zeros(0, int)]), minlength=len(dataset.categories))
    chosen, wanted = [], round(share * len(images))
    for place in np.random.default_rng(_HELD_OUT).permutation(len(images)):
        if len(chosen) == wanted:
            break
        if (left[classes_of[place]] > 2).all():
            left[classes_of[place]] -= 1
            chosen.append(images[place])
    return np.sort(np.asarray(chosen, int))


def check_buckets(dataset: PreparedDataset, augmentation: Augmentation) -> None:
    """Raises WrongSetting unless every training image fits in a bucket at each of its nominal sizes."""
    hw = np.unique(dataset.image_hw[trainable(dataset.image_hw, dataset.label_offset)], axis=0)
    for side in augmentation.short_sides:
        fitting_bucket(target_size(hw, side, augmentation.max_side), augmentation.buckets)


class Sampler:
    """Which images an epoch shows, and how often.

    * "random": every trainable image once.
    * "repeat_factor": image I ceil(r(I)) times, the list of the PyTorch reference.
    * "repeat_factor_stochastic": floor(r(I)) times, once more with the probability of the rest (LVIS paper).
    * "class_aware": an endless row of shuffled passes over the classes; a class's turn shows the next image of an
      endless row of shuffled passes over its images. An epoch is as many turns as there are trainable images.

    Attributes:
      images: indices of the trainable images that are not held out.
    """

    def __init__(self, dataset: PreparedDataset, name: str, *, threshold: float = 1e-3, held_out: float = 0.0):
        """`name` is one of `SAMPLERS`. Raises UserError, with the reasons, for a data set without a trainable image."""
        self.name = name
        self.images = trainable(dataset.image_hw, dataset.label_offset)
        if not len(self.images):
            raise UserError(dataset.nothing_trains)
        if held_out:
            self.images = np.setdiff1d(self.images, held_out_images(dataset, held_out))
        if name.startswith("repeat_factor"):
            classes = len(dataset.categories)
            factors = repeat_factors(dataset.label, dataset.label_offset, classes, threshold=threshold)
            self._factors = factors[self.images]
        if name == "class_aware":
            self._images_of = _images_of_classes(dataset, self.images)

    def occurrences(self, seed: int, epoch: int) -> np.ndarray:
        """Image indices of an epoch; the order says nothing."""
        if self.name == "random":
            return self.images
        if self.name == "repeat_factor":
            return np.repeat(self.images, np.ceil(self._factors).astype(int))
        if self.name == "repeat_factor_stochastic":
            rest, least = np.modf(self._factors)
            more = np.random.default_rng((seed, epoch, _ROUNDING)).random(len(rest)) < rest
            return np.repeat(self.images, least.astype(int) + more)
        return self._turns(seed, epoch)

    def nominal_length(self) -> int:
        """Occurrences per epoch, for schedules; the expected number where chance decides."""
        if self.name == "repeat_factor_stochastic":
            return int(np.rint(self._factors.sum()))
        return len(self.images) if self.name == "class_aware" else len(self.occurrences(0, 0))

    def _turns(self, seed: int, epoch: int) -> np.ndarray:
        """Turn t belongs to pass t // C over the C classes, and in pass p a class shows the p-th image of its row."""
        classes, length = len(self._images_of), len(self.images)
        first, last = epoch * length, (epoch + 1) * length
        passes = range(first // classes, -(-last // classes))
        order = [np.random.default_rng((seed, p, _CLASSES)).permutation(classes) for p in passes]
        rows = [_endless_row(own, passes, (seed, k, _IMAGES)) for k, own in enumerate(self._images_of)]
        shown = np.concatenate([np.stack(rows)[turn, number] for number, turn in enumerate(order)])
        return shown[first - passes.start * classes :][:length]


def _images_of_classes(dataset: PreparedDataset, images: np.ndarray) -> list[np.ndarray]:
    """The images of each class that has any, in index order."""
    counts = np.diff(dataset.label_offset)
    image = np.repeat(np.arange(len(counts)), counts)
    kept = np.isin(image, images)
    pairs = np.unique(dataset.label[kept].astype(np.int64) * len(counts) + image[kept])
    starts = np.unique(pairs // len(counts), return_index=True)[1]
    return np.split(pairs % len(counts), starts[1:])


def _endless_row(values: np.ndarray, places: range, seed: tuple[int, ...]) -> np.ndarray:
    """Elements at `places` of the endless row of shufflings of `values`."""
    count = len(values)
    if count == 1:
        return np.repeat(values, len(places))
    rounds = range(places.start // count, -(-places.stop // count))
    row = np.concatenate([np.random.default_rng((*seed, r)).permutation(values) for r in rounds])
    return row[places.start - rounds.start * count :][: len(places)]


def epoch_steps(
    dataset: PreparedDataset, sampler: Sampler, augmentation: Augmentation, *, seed: int, epoch: int, batch_size: int
) -> list[Step]:
    """All steps of an epoch.

    A bucket's last batch is filled up from its own beginning, so every occurrence is seen and at most
    ``batch_size - 1`` per bucket twice.
    """
    rng = np.random.default_rng((seed, epoch))
    index = rng.permutation(sampler.occurrences(seed, epoch))
    hw = dataset.image_hw[index]
    short = rng.choice(np.asarray(augmentation.short_sides), len(index))
    flip = rng.random(len(index)) < augmentation.flip_probability
    target, window = target_size(hw, short, augmentation.max_side), whole(hw)
    bucket = fitting_bucket(target, augmentation.buckets)
    if augmentation.scale_jitter:
        limit = np.asarray(augmentation.buckets)[bucket]
        scale = rng.uniform(*augmentation.scale_jitter, len(index))
        window, target = jitter(hw, target, limit, scale, rng.random((len(index), 2)))
        bucket = fitting_bucket(target, augmentation.buckets)
    key = np.random.default_rng((seed, epoch, _KEYS)).integers(np.iinfo(np.int64).max, size=len(index))
    steps = []
    for shape in np.unique(bucket):
        members = np.flatnonzero(bucket == shape)
        members = np.resize(members, -(-len(members) // batch_size) * batch_size)
        padded = augmentation.buckets[shape]
        for batch in members.reshape(-1, batch_size):
            steps.append(Step(index[batch], window[batch], target[batch], flip[batch], key[batch], padded))
    return [steps[i] for i in rng.permutation(len(steps))]


def evaluation_steps(
    dataset: PreparedDataset,
    *,
    short_side: int,
    max_side: int,
    buckets: tuple[tuple[int, int], ...],
    batch_size: int,
    images: np.ndarray | None = None,
) -> list[Step]:
    """Every image (or those of `images`) once, whole and unflipped, in index order within its bucket.

    Last batches are filled up with index -1.
    """
    images = np.arange(len(dataset.image_hw)) if images is None else images
    target = target_size(dataset.image_hw, short_side, max_side)
    bucket = fitting_bucket(target[images], buckets)
    plain = {"flip": np.zeros(batch_size, bool), "key": np.zeros(batch_size, np.int64)}
    steps = []
    for shape in np.unique(bucket):
        members = images[bucket == shape]
        members = np.concatenate([members, np.full(-len(members) % batch_size, -1)])
        for batch in members.reshape(-1, batch_size):
            sizes = np.where((batch >= 0)[:, None], target[batch], 1)
            window = whole(dataset.image_hw[np.maximum(batch, 0)])
            steps.append(Step(batch, window, sizes, **plain, bucket=buckets[shape]))
    return steps
