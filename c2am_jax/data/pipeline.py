"""Steps to batches with tf.data: read records, decode JPEGs, augment if asked, pad to the source canvas."""

import collections
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from c2am_jax.checks import WrongSetting
from c2am_jax.data import augment
from c2am_jax.data.augment import Instances
from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.data.prepared import PreparedDataset, UnreadableRecord
from c2am_jax.data.records import InstanceTensors, parse_record
from c2am_jax.data.sampler import Sampler, Step, check_buckets, epoch_steps, evaluation_steps
from c2am_jax.data.settings import DataSettings
from c2am_jax.data.tensorflow_host import tf
from c2am_jax.structures import Batch
from c2am_jax.wording import counted

_LOG = logging.getLogger(__name__)
NO_IMAGE = -1


class _Maker:
    """From an occurrence to the fields of `Batch`, each at its own size; graph code."""

    def __init__(self, dataset: PreparedDataset, settings: DataSettings, partners: np.ndarray):
        """`partners`: the images whose objects may be pasted."""
        self._dataset, self._settings, self._partners = dataset, settings, partners
        self._fit = bool(dataset.image_hw.max() > settings.canvas)
        self.unreadable: list[UnreadableRecord] = []  # TensorFlow turns exceptions into texts of its own

    def __call__(self, record, real, window, target_hw, flip, key) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Fields whose padded axes are still short, and how many instances do not fit in.

        Not `real`: the image only fills up its batch.
        """
        settings = self._settings
        image, image_id, instances = parse_record(record)
        if settings.scale_jitter:
            top, left, height, width = tf.unstack(window)
            image = image[top : top + height, left : left + width]
            instances = _numpy(_crop, (*instances, window), _INSTANCES)
        if settings.copy_paste:
            image, instances = self._paste(image, instances, target_hw, key)
        if settings.color_jitter:
            image = augment.jitter_colours(image, key, settings.color_jitter)
        boxes, labels, masks = instances
        if self._fit:
            image, boxes = fitted(image, boxes, settings.canvas)
        room = settings.max_instances
        fields = {
            "image": tf.ensure_shape(image, (None, None, 3)),
            "source_hw": tf.shape(image)[:2],
            "target_hw": target_hw,
            "flip": flip,
            "boxes": boxes[:room],
            "labels": labels[:room],
            "masks": masks[:room],
            "valid": tf.fill(tf.shape(labels[:room]), real),
            "image_id": tf.where(real, image_id, tf.constant(NO_IMAGE, tf.int64)),
        }
        return fields, tf.maximum(tf.shape(labels)[0] - room, 0)

    @property
    def padded_shapes(self) -> tuple[dict[str, tuple[int, ...]], tuple[()]]:
        """Of what a call returns, in a batch."""
        canvas, room = self._settings.canvas, self._settings.max_instances
        fields = {
            "image": (canvas, canvas, 3),
            "source_hw": (2,),
            "target_hw": (2,),
            "flip": (),
            "boxes": (room, 4),
            "labels": (room,),
            "masks": (room, MASK_SIZE, MASK_SIZE // 8),
            "valid": (room,),
            "image_id": (),
        }
        return fields, ()

    def read(self, index: int) -> bytes:
        """The record of an image; `unreadable` keeps what was wrong with it."""
        try:
            return self._dataset.read(index)
        except UnreadableRecord as error:
            self.unreadable.append(error)
            raise

    def _paste(self, image: tf.Tensor, instances: InstanceTensors, target_hw, key) -> tuple[tf.Tensor, InstanceTensors]:
        def draw(key):
            return np.int64(augment.draw_partner(int(key), self._partners, self._settings.copy_paste))

        def paste(image, boxes, labels, masks, other, other_boxes, other_labels, other_masks, target_hw, key):
            objects = Instances(other_boxes, other_labels, other_masks)
            placement = augment.draw_placement(
                int(key),
                np.array(image.shape[:2]),
                target_hw,
                np.array(other.shape[:2]),
                len(objects),
                self._settings.augmentation,
            )
            image, made = augment.paste(image, Instances(boxes, labels, masks), other, objects, placement)
            return image, made.boxes, made.labels, made.masks

        def pasted():
            record = tf.numpy_function(self.read, [partner], tf.string, stateful=False)
            other, _, objects = parse_record(tf.ensure_shape(record, ()))
            arguments = (image, *instances, other, *objects, target_hw, key)
            return _numpy(paste, arguments, (tf.TensorSpec((None, None, 3), tf.uint8), *_INSTANCES))

        partner = tf.ensure_shape(tf.numpy_function(draw, [key], tf.int64, stateful=False), ())
        image = tf.ensure_shape(image, (None, None, 3))
        image, *instances = tf.cond(partner >= 0, pasted, lambda: (image, *instances))
        return image, tuple(instances)


_INSTANCES = (
    tf.TensorSpec((None, 4), tf.float32),
    tf.TensorSpec((None,), tf.int32),
    tf.TensorSpec((None, MASK_SIZE, MASK_SIZE // 8), tf.uint8),
)


def _numpy(function: Callable, arguments, signature: tuple[tf.TensorSpec, ...]) -> tuple[tf.Tensor, ...]:
    """`tf.numpy_function` of a pure function, with the shapes that it is known to return."""
    made = tf.numpy_function(function, arguments, [s.dtype for s in signature], stateful=False)
    return tuple(tf.ensure_shape(tensor, s.shape) for tensor, s in zip(made, signature, strict=True))


def _crop(boxes, labels, masks, window):
    made = augment.crop(Instances(boxes, labels, masks), window)
    return made.boxes, made.labels, made.masks


def fitted(image: tf.Tensor, boxes: tf.Tensor, canvas: int) -> tuple[tf.Tensor, tf.Tensor]:
    """An image no larger than the canvas, with its boxes."""
    hw = tf.shape(image)[:2]
    scale = tf.minimum(tf.constant(1.0, tf.float64), canvas / tf.cast(tf.reduce_max(hw), tf.float64))
    smaller = tf.maximum(tf.cast(tf.cast(hw, tf.float64) * scale + 0.5, tf.int32), 1)
    ratio = tf.cast(smaller / hw, tf.float32)[::-1]
    return tf.cast(tf.round(tf.image.resize(image, smaller)), tf.uint8), boxes * tf.concat([ratio, ratio], 0)


def _batches(
    dataset: PreparedDataset,
    settings: DataSettings,
    steps: Iterable[Step],
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    partners: np.ndarray,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """This process's slice of each step, in order."""
    if batch_size % process_count:
        raise WrongSetting("config.train.batch_size", f"={batch_size} does not divide among {process_count} processes")
    size = batch_size // process_count
    own = slice(process_index * size, (process_index + 1) * size)
    buckets = collections.deque()  # of the steps that tf.data has asked for and not yet delivered

    make = _Maker(dataset, settings, partners)

    def slices():
        for step in steps:
            buckets.append(step.bucket)
            index = step.index[own]
            # Here and not in the workers: those would wait for each other, as Python runs one at a time.
            records = [make.read(i) for i in np.maximum(index, 0)]
            yield records, index >= 0, step.window[own], step.target_hw[own], step.flip[own], step.key[own]

    kinds = (((), tf.string), ((), tf.bool), ((4,), tf.int32), ((2,), tf.int32), ((), tf.bool), ((), tf.int64))
    signature = tuple(tf.TensorSpec((size, *shape), kind) for shape, kind in kinds)
    stream = tf.data.Dataset.from_generator(slices, output_signature=signature).prefetch(1).unbatch()
    stream = stream.map(make, num_parallel_calls=settings.workers, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = settings.workers
    stream = stream.padded_batch(size, make.padded_shapes, drop_remainder=True).prefetch(2).with_options(options)
    dropped = 0
    for fields, lost in _named_failures(stream, make.unreadable):
        if lost.any():
            dropped += int(lost.sum())
            told = counted(dropped, "instance")
            _LOG.warning("data.max_instances=%d: %s left out so far", settings.max_instances, told)
        yield buckets.popleft(), Batch(**fields)


def _named_failures(stream: tf.data.Dataset, unreadable: list[UnreadableRecord]) -> Iterator[Any]:
    """Elements of a stream; a record that could not be read raises as such."""
    failure = tf.errors.OpError  # the module may be gone when the interpreter closes the generator
    try:
        yield from stream.as_numpy_iterator()
    except failure:
        if unreadable:
            raise unreadable[0] from None
        raise


def train_steps(
    dataset: PreparedDataset,
    sampler: Sampler,
    settings: DataSettings,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
) -> Iterator[Step]:
    """The endless sequence of training steps from `start_step` on, epoch after epoch; no image is read."""
    epoch, skip = 0, start_step
    while True:
        steps = epoch_steps(dataset, sampler, settings.augmentation, seed=seed, epoch=epoch, batch_size=batch_size)
        yield from steps[skip:]
        skip = max(skip - len(steps), 0)
        epoch += 1


def train_batches(
    dataset: PreparedDataset,
    settings: DataSettings,
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
      WrongSetting: at once, for a sampler, a batch size or buckets that do not go with the processes or the images.
      UnreadableRecord: while running, names the image.
    """
    sampler = _checked_sampler(dataset, settings)
    steps = train_steps(dataset, sampler, settings, batch_size=batch_size, seed=seed, start_step=start_step)
    process = {"process_index": process_index, "process_count": process_count}
    return _batches(dataset, settings, steps, batch_size=batch_size, partners=sampler.images, **process)


def _checked_sampler(dataset: PreparedDataset, settings: DataSettings) -> Sampler:
    check_buckets(dataset, settings.augmentation)
    return Sampler(dataset, settings.sampler, threshold=settings.repeat_threshold, held_out=settings.held_out)


def eval_batches(
    dataset: PreparedDataset,
    settings: DataSettings,
    *,
    batch_size: int,
    images: np.ndarray | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """Every image (or those of `images`) once, as it is.

    Rows that only fill up a batch have image_id -1 and no valid instance.
    """
    steps = evaluation_steps(dataset, **settings.evaluation_sizes, batch_size=batch_size, images=images)
    process = {"process_index": process_index, "process_count": process_count}
    nobody = np.zeros(0, np.int64)
    return _batches(dataset, settings.for_evaluation, steps, batch_size=batch_size, partners=nobody, **process)


def epoch_length(dataset: PreparedDataset, settings: DataSettings, batch_size: int) -> int:
    """Nominal steps per epoch, for schedules. Raises WrongSetting as `train_batches` would."""
    return -(-_checked_sampler(dataset, settings).nominal_length() // batch_size)
