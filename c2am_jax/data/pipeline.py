"""Steps to batches with tf.data: read records, decode JPEGs, pad to the source canvas."""

import collections
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from c2am_jax.data.builder import PreparedDataset, UnreadableRecord
from c2am_jax.data.jpeg import decode_jpeg
from c2am_jax.data.masks import MASK_SIZE
from c2am_jax.data.sampler import (
    Augmentation,
    Step,
    WrongSetting,
    check_buckets,
    epoch_steps,
    evaluation_steps,
    steps_per_epoch,
)
from c2am_jax.data.tensorflow_host import tf
from c2am_jax.structures import Batch

_LOG = logging.getLogger(__name__)
NO_IMAGE = -1


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """The part of `config.data` that makes batches of a prepared data set.

    Attributes:
      canvas: side of the square source canvas; larger images are first fitted to it on the host.
      max_instances: padded number of ground truths, G.
      sampler: "random", "repeat_factor" (rounded up, as the reference) or "repeat_factor_stochastic".
      repeat_threshold: t of the repeat factor.
      short_sides, max_side, flip_probability: training sizes, as in `sampler.Augmentation`.
      buckets: padded shapes (H, W), multiples of 32.
      test_short_side: short side in evaluation.
      workers: images decoded at once.
    """

    canvas: int = 640
    max_instances: int = 300
    sampler: str = "random"
    repeat_threshold: float = 1e-3
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    max_side: int = 1333
    flip_probability: float = 0.5
    buckets: tuple[tuple[int, int], ...] = ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
    test_short_side: int = 800
    workers: int = 8

    def __post_init__(self):
        """Raises WrongSetting for values that no batch can be made of."""
        for name in ("canvas", "max_instances", "max_side", "test_short_side", "workers"):
            if getattr(self, name) < 1:
                raise WrongSetting(f"data.{name}={getattr(self, name)} must be at least 1")
        if not self.short_sides or min(self.short_sides) < 1:
            raise WrongSetting(f"data.short_sides={self.short_sides} must be one or more positive lengths")
        if not 0 <= self.flip_probability <= 1:
            raise WrongSetting(f"data.flip_probability={self.flip_probability} is not between 0 and 1")
        for bucket in self.buckets:
            if len(bucket) != 2 or min(bucket) < 1 or bucket[0] % 32 or bucket[1] % 32:
                raise WrongSetting(f"data.buckets: {bucket} is not (height, width) in multiples of 32")
        if not self.buckets:
            raise WrongSetting("data.buckets is empty")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PipelineSettings":
        """From `config.data`, whose other keys say where the data is; lists become tuples."""
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {key: value for key, value in values.items() if key in known}
        chosen["short_sides"] = tuple(chosen["short_sides"])
        chosen["buckets"] = tuple(tuple(bucket) for bucket in chosen["buckets"])
        return cls(**chosen)

    @property
    def augmentation(self) -> Augmentation:
        """What the sampler draws from."""
        return Augmentation(self.short_sides, self.max_side, self.flip_probability, self.buckets)


def _image_tensors(dataset: PreparedDataset, settings: PipelineSettings, read, index, target_hw, flip):
    """One element: fields of `Batch` and the number of instances that did not fit."""
    canvas, room = settings.canvas, settings.max_instances
    parsed = dataset.parse(tf.numpy_function(read, [tf.maximum(index, 0)], tf.string, stateful=False))
    image = decode_jpeg(parsed["image"])
    hw = tf.shape(image)[:2]
    boxes = parsed["instances"]["box"]
    if dataset.image_hw.max() > canvas:
        scale = tf.minimum(tf.constant(1.0, tf.float64), canvas / tf.cast(tf.reduce_max(hw), tf.float64))
        fitted = tf.cast(tf.cast(hw, tf.float64) * scale + 0.5, tf.int32)
        image = tf.cast(tf.round(tf.image.resize(image, fitted)), tf.uint8)
        ratio = tf.cast(fitted / hw, tf.float32)[::-1]
        boxes *= tf.concat([ratio, ratio], 0)
        hw = fitted
    image = tf.image.pad_to_bounding_box(image, 0, 0, canvas, canvas)
    image.set_shape((canvas, canvas, 3))

    def pad(values, shape):
        values = values[:room]
        padding = [[0, room - tf.shape(values)[0]]] + [[0, 0]] * (len(shape))
        return tf.ensure_shape(tf.pad(values, padding), (room, *shape))

    labels = parsed["instances"]["label"]
    fields = {
        "image": image,
        "source_hw": tf.ensure_shape(hw, (2,)),
        "target_hw": target_hw,
        "flip": flip,
        "boxes": pad(boxes, (4,)),
        "labels": pad(labels, ()),
        "masks": pad(parsed["instances"]["mask"], (MASK_SIZE, MASK_SIZE // 8)),
        "valid": pad(tf.fill(tf.shape(labels), index >= 0), ()),
        "image_id": tf.where(index >= 0, parsed["image_id"], tf.constant(NO_IMAGE, tf.int64)),
    }
    return fields, tf.maximum(tf.shape(labels)[0] - room, 0)


def _batches(
    dataset: PreparedDataset,
    settings: PipelineSettings,
    steps: Iterable[Step],
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """This process's slice of each step, in order."""
    if batch_size % process_count:
        raise WrongSetting(f"train.batch_size={batch_size} does not divide among {process_count} processes")
    size = batch_size // process_count
    own = slice(process_index * size, (process_index + 1) * size)
    buckets = collections.deque()  # of the steps that tf.data has asked for and not yet delivered

    def elements():
        for step in steps:
            buckets.append(step.bucket)
            yield from zip(step.index[own], step.target_hw[own], step.flip[own], strict=True)

    unreadable = []  # TensorFlow turns exceptions into texts of its own

    def read(index):
        try:
            return dataset.read(index)
        except UnreadableRecord as error:
            unreadable.append(error)
            raise

    signature = (tf.TensorSpec((), tf.int64), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.bool))
    stream = tf.data.Dataset.from_generator(elements, output_signature=signature)
    make = lambda *element: _image_tensors(dataset, settings, read, *element)  # noqa: E731
    stream = stream.map(make, num_parallel_calls=settings.workers, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = settings.workers
    stream = stream.batch(size, drop_remainder=True).prefetch(2).with_options(options)
    dropped = 0
    for fields, lost in _named_failures(stream, unreadable):
        if lost.any():
            dropped += int(lost.sum())
            _LOG.warning("data.max_instances=%d: %d instances left out so far", settings.max_instances, dropped)
        yield buckets.popleft(), Batch(**fields)


def _named_failures(stream: tf.data.Dataset, unreadable: list[UnreadableRecord]) -> Iterator[Any]:
    """Elements of a stream; a record that could not be read raises as such."""
    try:
        yield from stream.as_numpy_iterator()
    except tf.errors.OpError:
        if unreadable:
            raise unreadable[0] from None
        raise


def train_steps(
    dataset: PreparedDataset, settings: PipelineSettings, *, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[Step]:
    """The endless sequence of training steps from `start_step` on, epoch after epoch; no image is read."""
    epoch, skip = 0, start_step
    while True:
        steps = epoch_steps(
            dataset,
            seed=seed,
            epoch=epoch,
            sampler=settings.sampler,
            threshold=settings.repeat_threshold,
            augmentation=settings.augmentation,
            batch_size=batch_size,
        )
        yield from steps[skip:]
        skip = max(skip - len(steps), 0)
        epoch += 1


def train_batches(
    dataset: PreparedDataset,
    settings: PipelineSettings,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """Endless training stream of (bucket, `Batch` of numpy arrays); `batch_size` is global.

    The stream is a function of (seed, step): starting at `start_step` gives what an undisturbed run would see.

    Raises:
      WrongSetting: at once, for a batch size or buckets that do not go with the processes or the images.
      UnreadableRecord: while running, names the image.
    """
    check_buckets(dataset, settings.augmentation)
    steps = train_steps(dataset, settings, batch_size=batch_size, seed=seed, start_step=start_step)
    process = {"process_index": process_index, "process_count": process_count}
    return _batches(dataset, settings, steps, batch_size=batch_size, **process)


def eval_batches(
    dataset: PreparedDataset,
    settings: PipelineSettings,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """Every image once; rows that only fill up a batch have image_id -1 and no valid instance."""
    steps = evaluation_steps(
        dataset,
        short_side=settings.test_short_side,
        max_side=settings.max_side,
        buckets=settings.buckets,
        batch_size=batch_size,
    )
    process = {"process_index": process_index, "process_count": process_count}
    return _batches(dataset, settings, steps, batch_size=batch_size, **process)


def epoch_length(dataset: PreparedDataset, settings: PipelineSettings, batch_size: int) -> int:
    """Nominal steps per epoch, for schedules. Raises WrongSetting as `train_batches` would."""
    check_buckets(dataset, settings.augmentation)
    return steps_per_epoch(
        dataset, sampler=settings.sampler, threshold=settings.repeat_threshold, batch_size=batch_size
    )
