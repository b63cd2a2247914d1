"""What `config.data` says about batches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from c2am_jax.data.sampler import Augmentation, WrongSetting


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """The part of `config.data` that makes batches of a prepared data set.

    Attributes:
      canvas: side of the square source canvas; larger images are first fitted to it on the host.
      max_instances: padded number of ground truths, G.
      sampler: "random", "repeat_factor" (rounded up, as the reference), "repeat_factor_stochastic" or "class_aware",
        see `sampler.Sampler`.
      repeat_threshold: t of the repeat factor.
      held_out: share of the training images that never train, see `sampler.held_out_images`.
      short_sides, max_side, flip_probability: training sizes, as in `sampler.Augmentation`.
      buckets: padded shapes (H, W), multiples of 32.
      scale_jitter: () or (low, high), large-scale jitter with crop, as in `sampler.Augmentation`.
      copy_paste: probability that objects of another image are pasted into an image.
      color_jitter: () or how strongly (brightness, contrast, saturation, hue) vary, as in `augment.jitter_colours`.
      test_short_side: short side in evaluation.
      workers: images decoded at once.
    """

    canvas: int = 640
    max_instances: int = 300
    sampler: str = "random"
    repeat_threshold: float = 1e-3
    held_out: float = 0.0
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    max_side: int = 1333
    flip_probability: float = 0.5
    buckets: tuple[tuple[int, int], ...] = ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
    scale_jitter: tuple[float, ...] = ()
    copy_paste: float = 0.0
    color_jitter: tuple[float, ...] = ()
    test_short_side: int = 800
    workers: int = 8

    def __post_init__(self):
        """Raises WrongSetting for values that no batch can be made of."""
        for name in ("canvas", "max_instances", "max_side", "test_short_side", "workers"):
            if getattr(self, name) < 1:
                raise WrongSetting(f"data.{name}={getattr(self, name)} must be at least 1")
        if not self.short_sides or min(self.short_sides) < 1:
            raise WrongSetting(f"data.short_sides={self.short_sides} must be one or more positive lengths")
        for name in ("flip_probability", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise WrongSetting(f"data.{name}={getattr(self, name)} is not between 0 and 1")
        if not 0 <= self.held_out < 1:
            raise WrongSetting(f"data.held_out={self.held_out} is not a share from 0 to below 1")
        if self.scale_jitter and not (len(self.scale_jitter) == 2 and 0 < self.scale_jitter[0] <= self.scale_jitter[1]):
            raise WrongSetting(f"data.scale_jitter={self.scale_jitter} must be () or (low, high) with 0 < low <= high")
        if self.color_jitter and not (
            len(self.color_jitter) == 4 and 0 <= min(self.color_jitter) and max(self.color_jitter) <= 1
        ):
            text = "must be () or four strengths from 0 to 1: brightness, contrast, saturation, hue"
            raise WrongSetting(f"data.color_jitter={self.color_jitter} {text}")
        if self.color_jitter and self.color_jitter[3] > 0.5:
            raise WrongSetting(f"data.color_jitter={self.color_jitter}: the hue turns by at most 0.5 of the circle")
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
        for key in {"short_sides", "scale_jitter", "color_jitter"} & set(chosen):
            chosen[key] = tuple(chosen[key])
        chosen["buckets"] = tuple(tuple(bucket) for bucket in chosen["buckets"])
        return cls(**chosen)

    @property
    def augmentation(self) -> Augmentation:
        """What the sampler draws from."""
        return Augmentation(self.short_sides, self.max_side, self.flip_probability, self.buckets, self.scale_jitter)

    @property
    def for_evaluation(self) -> "PipelineSettings":
        """These settings without any augmentation."""
        return dataclasses.replace(self, scale_jitter=(), copy_paste=0.0, color_jitter=())
