"""Optional augmentations on the host: what crops and pasted objects do to boxes and masks, and to pixels.

Every random draw is a function of the occurrence's key (`sampler.Step.key`): nothing depends on the order in which
images are made. Masks are those of the records, bit-packed in the frame of their own box; boxes are float32 xyxy.
A box that lies wholly inside what remains visible keeps its numbers and its mask bit by bit.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from c2am_jax.data.box_masks import MASK_SIZE, pack
from c2am_jax.data.sampler import Augmentation, target_size
from c2am_jax.data.tensorflow_host import tf

MIN_SIDE = 1.0  # pixels of the photo; what is left of a box must train as a box of the annotations does
# Reference rule (Simple Copy-Paste): an object of which at most this many pixels stay uncovered goes, if that moved a
# side of its box by more than so many pixels.
COVERED_AREA, COVERED_SHIFT = 300, 10.0


@dataclasses.dataclass(frozen=True)
class Instances:
    """Objects of one image: boxes float32 [n, 4] in its pixels, labels int32 [n], masks uint8 [n, M, M / 8]."""

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        """How many instances the image has."""
        return len(self.labels)

    def __getitem__(self, chosen) -> "Instances":
        """The instances that an index array, slice or bool mask chooses."""
        return Instances(self.boxes[chosen], self.labels[chosen], self.masks[chosen])


def _join(first: Instances, second: Instances) -> Instances:
    pairs = zip(_fields(first), _fields(second), strict=True)
    return Instances(*(np.concatenate(pair) for pair in pairs))


def _fields(instances: Instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return instances.boxes, instances.labels, instances.masks


def resample(mask: np.ndarray, frame: Sequence[float], region: Sequence[float], shape: tuple[int, int]) -> np.ndarray:
    """A mask seen through another grid: bilinear at the centres of the new cells, at least 0.5.

    Args:
      mask: 0 and 1, [h, w], cells that divide `frame` evenly.
      frame: xyxy.
      region: xyxy that the new cells divide, in the same coordinates; cells centred outside the frame are 0.
      shape: of the result.

    Returns:
      bool of that shape.
    """

    def weights(low, high, cells, start, stop, count):
        at = start + (np.arange(count) + 0.5) * ((stop - start) / count)
        outside = (at < low) | (at > high)
        at = np.clip((at - low) / (high - low) * cells - 0.5, 0, cells - 1)
        first = np.minimum(at.astype(np.int64), max(cells - 2, 0))
        return first, np.minimum(first + 1, cells - 1), (at - first).astype(np.float32), outside

    top, bottom, fy, above = weights(frame[1], frame[3], mask.shape[0], region[1], region[3], shape[0])
    left, right, fx, beside = weights(frame[0], frame[2], mask.shape[1], region[0], region[2], shape[1])
    rows = mask[top] * (1 - fy)[:, None] + mask[bottom] * fy[:, None]
    values = rows[:, left] * (1 - fx) + rows[:, right] * fx
    return (values >= 0.5) & ~above[:, None] & ~beside


def _extent(mask: np.ndarray, frame: Sequence[float]) -> np.ndarray | None:
    """Tight xyxy of a mask's cells, None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    cell = (frame[2] - frame[0]) / mask.shape[1], (frame[3] - frame[1]) / mask.shape[0]
    low = frame[0] + columns[0] * cell[0], frame[1] + rows[0] * cell[1]
    high = frame[0] + (columns[-1] + 1) * cell[0], frame[1] + (rows[-1] + 1) * cell[1]
    return np.array([*low, *high])


def crop(instances: Instances, window: Sequence[int]) -> Instances:
    """What a window shows of the instances, in the window's pixels.

    A box that the window cuts becomes the box of what is visible of its mask (so does the reference after a crop: the
    intersection of box and window need not be tight), and its mask is sampled again in that frame. Instances with
    nothing visible, or less than a pixel wide or high, go.

    Args:
      instances: of the whole image.
      window: top, left, height, width in its pixels.
    """
    top, left, height, width = (int(v) for v in window)
    boxes = instances.boxes - np.array([left, top, left, top], np.float32)
    limit = np.array([width, height, width, height], np.float32)
    clipped = np.clip(boxes, 0, limit)
    shown = (clipped[:, 2:] - clipped[:, :2] >= MIN_SIDE).all(1)
    cut = (clipped != boxes).any(1)
    shown |= ~cut  # annotations as they are, whatever their size
    masks = instances.masks.copy()
    for i in np.flatnonzero(shown & cut):
        mask = np.unpackbits(masks[i], axis=-1)
        box = _visible_box(mask, boxes[i], clipped[i])
        shown[i] = box is not None
        if box is not None:
            masks[i] = pack(resample(mask, boxes[i], box, (MASK_SIZE, MASK_SIZE)))
            clipped[i] = box
    return Instances(clipped, instances.labels, masks)[shown]


def _visible_box(mask: np.ndarray, box: np.ndarray, clipped: np.ndarray) -> np.ndarray | None:
    """Box of the mask's cells whose centres lie in `clipped`; None if nothing of a pixel's size is left."""

    def inside(low, high, start, stop):
        at = low + (np.arange(MASK_SIZE) + 0.5) * ((high - low) / MASK_SIZE)
        return (at >= start) & (at <= stop)

    rows = inside(box[1], box[3], clipped[1], clipped[3])
    columns = inside(box[0], box[2], clipped[0], clipped[2])
    found = _extent(mask * rows[:, None] * columns, box)
    if found is None:
        return None
    tight = np.concatenate([np.maximum(found[:2], clipped[:2]), np.minimum(found[2:], clipped[2:])]).astype(np.float32)
    return tight if (tight[2:] - tight[:2] >= MIN_SIDE).all() else None


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where another image lies in this one: mirrored if `flip`, made `scale` (y, x) times as large, moved by `offset`.

    `offset` is (y, x) in this image's pixels and may be negative; `chosen` says which objects are pasted, bool [n].
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    flip: bool
    chosen: np.ndarray


def draw_partner(key: int, images: np.ndarray, probability: float) -> int:
    """The image whose objects are pasted into the occurrence with this key, -1 for none."""
    rng = np.random.default_rng((key, 0))
    return int(rng.choice(images)) if rng.random() < probability else -1


def draw_placement(
    key: int, hw: np.ndarray, target_hw: np.ndarray, partner_hw: np.ndarray, count: int, augmentation: Augmentation
) -> Placement:
    """How the partner lies in the occurrence: at a size that it could have itself been shown at, anywhere.

    Args:
      key: of the occurrence.
      hw: size of what is shown of the occurrence, in its pixels.
      target_hw: the size it will be resized to.
      partner_hw: size of the partner's image.
      count: of the partner's objects; each is chosen with a probability of one half, at least one in all.
      augmentation: draws the partner's size and flip.
    """
    rng = np.random.default_rng((key, 1))
    size = target_size(partner_hw, rng.choice(np.asarray(augmentation.short_sides)), augmentation.max_side)
    factor = rng.uniform(*augmentation.scale_jitter) if augmentation.scale_jitter else 1.0
    scale = size * factor / partner_hw * (hw / target_hw)
    room = hw - partner_hw * scale
    offset = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    flip = bool(rng.random() < augmentation.flip_probability)
    chosen = rng.random(count) < 0.5
    if count:
        chosen[rng.integers(count)] = True
    return Placement((scale[0], scale[1]), (offset[0], offset[1]), flip, chosen)


def paste(
    image: np.ndarray, instances: Instances, other: np.ndarray, objects: Instances, placement: Placement
) -> tuple[np.ndarray, Instances]:
    """Simple copy-paste (Ghiasi et al. 2021): objects of another image cover what lies below them.

    Objects that are partly covered get the box and mask of what stays visible; the reference's rule says which ones
    go altogether (`COVERED_AREA`).

    Args:
      image: uint8 [h, w, 3]; not changed.
      instances: of the image.
      other: uint8 [h', w', 3], where the objects come from.
      objects: all of the other image.
      placement: where it lies and which objects are pasted.

    Returns:
      The image with the objects, and the instances: those of the image first.
    """
    hw = image.shape[:2]
    placed = crop(_place(objects[placement.chosen], other.shape[1], placement), (0, 0, *hw))
    covered, drawn = np.zeros(hw, bool), np.zeros(len(placed), bool)
    for i, (box, bits) in enumerate(zip(placed.boxes, placed.masks, strict=True)):
        rows, columns, visible = _raster(box, bits, hw)
        covered[rows, columns] |= visible
        drawn[i] = visible.any()  # not so if it lies between the pixels' centres
    if not drawn.any():
        return image, instances
    return _composed(image, other, covered, placement), _join(_uncovered(instances, covered), placed[drawn])


def _place(objects: Instances, width: int, placement: Placement) -> Instances:
    boxes, masks = objects.boxes, objects.masks
    if placement.flip:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], -1)
        masks = pack(np.unpackbits(masks, axis=-1)[..., ::-1])
    scale = np.array([*placement.scale[::-1]] * 2, np.float32)
    offset = np.array([*placement.offset[::-1]] * 2, np.float32)
    return Instances((boxes * scale + offset).astype(np.float32), objects.labels, masks)


def _raster(box: np.ndarray, bits: np.ndarray, hw: tuple[int, int]) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of the pixels that a box touches, and which of them its mask holds."""
    low = np.maximum(np.floor(box[:2]).astype(int), 0)
    high = np.maximum(np.minimum(np.ceil(box[2:]).astype(int), hw[::-1]), low)
    shape = (high[1] - low[1], high[0] - low[0])
    mask = np.unpackbits(bits, axis=-1)
    inside = resample(mask, box, (*low, *high), shape) if min(shape) else np.zeros(shape, bool)
    return slice(low[1], high[1]), slice(low[0], high[0]), inside


def _composed(image: np.ndarray, other: np.ndarray, covered: np.ndarray, placement: Placement) -> np.ndarray:
    """The image with the pixels of `other` where `covered`, which holds at least one."""
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    rows, columns = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    if placement.flip:
        other = other[:, ::-1]
    (scale_y, scale_x), (offset_y, offset_x) = placement.scale, placement.offset
    height, width = other.shape[:2]
    box = (
        max((columns.start - offset_x) / scale_x, 0),
        max((rows.start - offset_y) / scale_y, 0),
        min((columns.stop - offset_x) / scale_x, width),
        min((rows.stop - offset_y) / scale_y, height),
    )
    size = (columns.stop - columns.start, rows.stop - rows.start)
    pixels = Image.fromarray(other).resize(size, Image.Resampling.BILINEAR, box=box)
    result = image.copy()
    result[rows, columns][covered[rows, columns]] = np.asarray(pixels)[covered[rows, columns]]
    return result


def _uncovered(instances: Instances, covered: np.ndarray) -> Instances:
    boxes, masks = instances.boxes.copy(), instances.masks.copy()
    kept = np.ones(len(instances), bool)
    for i, (box, bits) in enumerate(zip(instances.boxes, instances.masks, strict=True)):
        rows, columns, inside = _raster(box, bits, covered.shape)
        hidden = covered[rows, columns]
        if not (inside & hidden).any():
            continue
        visible, frame = inside & ~hidden, (columns.start, rows.start, columns.stop, rows.stop)
        tight = _extent(visible, frame)
        if tight is None:
            kept[i] = False
            continue
        tight = np.concatenate([np.maximum(tight[:2], box[:2]), np.minimum(tight[2:], box[2:])]).astype(np.float32)
        kept[i] = (tight[2:] - tight[:2] >= MIN_SIDE).all() and (
            np.abs(tight - box).max() <= COVERED_SHIFT or visible.sum() > COVERED_AREA
        )
        if kept[i]:
            boxes[i], masks[i] = tight, pack(resample(visible, frame, tight, (MASK_SIZE, MASK_SIZE)))
    return Instances(boxes, instances.labels, masks)[kept]


def jitter_colours(image: tf.Tensor, key: tf.Tensor, strength: tuple[float, float, float, float]) -> tf.Tensor:
    """Random brightness, contrast, saturation and hue, in this order; uint8 [h, w, 3] to the same.

    Args:
      image: RGB.
      key: int64, of the occurrence.
      strength: the first three are factors from 1 - s to 1 + s, hue turns by up to s of the circle (at most 0.5).
    """
    draw = tf.random.stateless_uniform((4,), tf.stack([key, tf.constant(2, tf.int64)]), -1.0, 1.0)
    brightness, contrast, saturation, hue = tf.unstack(draw * tf.constant(strength, tf.float32))
    pixels = tf.clip_by_value(tf.cast(image, tf.float32) / 255 * (1 + brightness), 0, 1)
    pixels = tf.clip_by_value(tf.image.adjust_contrast(pixels, 1 + contrast), 0, 1)
    pixels = tf.image.adjust_hue(tf.image.adjust_saturation(pixels, 1 + saturation), hue)
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 1) * 255), tf.uint8)
