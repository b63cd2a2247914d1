"""`config.data`: where the data is, and how batches are made of it."""

import dataclasses
from typing import Annotated, Any, TypedDict

from c2am_jax.checks import Allowed, Below1, Count, Finite, Positive, Settings, Share, Text, one_of, wrong
from c2am_jax.data.sampler import SAMPLERS, Augmentation

_BUCKET = Allowed(
    "padded shapes such as ((800, 1344), (1344, 800)): one or more (height, width), both multiples of 32",
    lambda shapes: bool(shapes) and all(side > 0 and side % 32 == 0 for shape in shapes for side in shape),
)
_SIDES = Allowed("one or more lengths, such as (640, 800)", lambda sides: bool(sides) and min(sides) >= 1)
_JITTER = Allowed(
    "() or (low, high) with 0 < low <= high", lambda pair: not pair or (len(pair) == 2 and 0 < pair[0] <= pair[1])
)
_COLOURS = Allowed(
    "() or the strengths of brightness, contrast, saturation (0 to 1) and hue (0 to 0.5)",
    lambda four: not four or (len(four) == 4 and min(four) >= 0 and max(four) <= 1 and four[3] <= 0.5),
)


class Pixels(TypedDict):
    """Mean and standard deviation of RGB pixels from 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class DataSettings(Settings):
    """`config.data`; the defaults are the paper's, on LVIS v1.0.

    Attributes:
      name, dir: the prepared data set is ``DIR/NAME_train`` and ``DIR/NAME_val``.
      annotations, images, val_annotations, val_images: what it is prepared from; "" is the standard place, see
        `datasets.sources`.
      test_annotations, test_images: a third set for ``config.eval.split=test``; its pictures are the validation's if
        they are not named.
      canvas: side of the square source canvas; larger images are first fitted to it on the host.
      max_instances: padded number of ground truths, G.
      sampler: "random", "repeat_factor" (rounded up, as the reference), "repeat_factor_stochastic" or "class_aware",
        see `sampler.Sampler`.
      repeat_threshold: t of the repeat factor.
      held_out: share of the training images that never train, see `sampler.held_out_images`.
      short_sides, max_side, flip_probability: training sizes in pixels, as in `sampler.Augmentation`.
      buckets: padded shapes (H, W), multiples of 32.
      scale_jitter: () or (low, high), large-scale jitter with crop, as in `sampler.Augmentation`.
      copy_paste: probability that objects of another image are pasted into an image.
      color_jitter: () or how strongly (brightness, contrast, saturation, hue) vary, as in `augment.jitter_colours`.
      test_short_side: short side in evaluation.
      mean, std: of RGB pixels from 0 to 255; images are normalised with them on the device.
      workers: images decoded at once.
    """

    name: Text = "lvis_v1"
    dir: Text = "data"
    annotations: str = ""
    images: str = ""
    val_annotations: str = ""
    val_images: str = ""
    test_annotations: str = ""
    test_images: str = ""
    canvas: Count = 640
    max_instances: Count = 300
    sampler: Annotated[str, one_of(*SAMPLERS)] = "random"
    repeat_threshold: Share = 1e-3
    held_out: Below1 = 0.0
    short_sides: Annotated[tuple[int, ...], _SIDES] = (640, 672, 704, 736, 768, 800)
    max_side: Count = 1333
    flip_probability: Share = 0.5
    buckets: Annotated[tuple[tuple[int, int], ...], _BUCKET] = ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
    scale_jitter: Annotated[tuple[float, ...], _JITTER] = ()
    copy_paste: Share = 0.0
    color_jitter: Annotated[tuple[float, ...], _COLOURS] = ()
    test_short_side: Count = 800
    mean: tuple[Finite, Finite, Finite] = (123.675, 116.28, 103.53)
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    workers: Count = 8

    def relations(self) -> None:
        """Every short side is within the long one, and a square picture of it within a padded shape."""
        for name, side in (("short_sides", max(self.short_sides)), ("test_short_side", self.test_short_side)):
            if side > self.max_side:
                raise wrong(name, getattr(self, name), f"at most data.max_side={self.max_side}")
            if not any(min(shape) >= side for shape in self.buckets):
                raise wrong("buckets", self.buckets, f"large enough for pictures of {side}x{side}, see data.{name}")

    @property
    def pixels(self) -> Pixels:
        """How pixels are normalised, as keyword arguments."""
        return {"mean": self.mean, "std": self.std}

    @property
    def augmentation(self) -> Augmentation:
        """What the sampler draws from."""
        return Augmentation(self.short_sides, self.max_side, self.flip_probability, self.buckets, self.scale_jitter)

    @property
    def evaluation_sizes(self) -> dict[str, Any]:
        """Sizes in evaluation, as keyword arguments of `sampler.evaluation_steps`."""
        return {"short_side": self.test_short_side, "max_side": self.max_side, "buckets": self.buckets}

    @property
    def for_evaluation(self) -> "DataSettings":
        """These settings without any augmentation."""
        return dataclasses.replace(self, scale_jitter=(), copy_paste=0.0, color_jitter=())
