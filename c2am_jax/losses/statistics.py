"""How often each class occurs in the training set: what many long-tail losses are made of."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from c2am_jax.frequency import COMMON_MOST, RARE_MOST


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """Counts of the K foreground classes, in label order.

    Attributes:
      instance_count: float64 [K], annotations of each class.
      image_count: float64 [K], images with at least one.
      images: images with any annotation.
      trees: ``workdir of a baseline -> {tree: parent of each class [K]}``, see `losses.methods.forest`; without a
        workdir ("") there is no visual tree.
    """

    instance_count: np.ndarray
    image_count: np.ndarray
    images: int
    trees: Callable[[str], Mapping[str, np.ndarray]] | None = None

    @classmethod
    def uniform(cls, num_classes: int) -> "ClassStatistics":
        """All classes alike: for programs that are built before any data is there."""
        return cls(np.full(num_classes, 100.0), np.full(num_classes, 100.0), 100 * num_classes)

    @property
    def image_frequency(self) -> np.ndarray:
        """Share of images that hold each class, [K]."""
        return self.image_count / max(self.images, 1)

    @property
    def instances(self) -> np.ndarray:
        """Instance counts of at least 1, [K]: a class that never occurs divides nothing by zero."""
        return np.maximum(self.instance_count, 1.0)

    @property
    def is_rare(self) -> np.ndarray:
        """Classes of at most `RARE_MOST` images, bool [K]."""
        return self.image_count <= RARE_MOST

    @property
    def is_frequent(self) -> np.ndarray:
        """Classes of more than `COMMON_MOST` images, bool [K]."""
        return self.image_count > COMMON_MOST

    @property
    def frequency_group(self) -> np.ndarray:
        """0 rare, 1 common, 2 frequent (LVIS), int [K]."""
        return np.where(self.is_frequent, 2, np.where(self.is_rare, 0, 1))


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """``(1 - beta) / (1 - beta^n_c)``, normalised to sum K (Cui et al., CVPR 2019): [K]."""
    weights = (1 - beta) / -np.expm1(np.maximum(counts, 1.0) * np.log(beta))
    return weights * len(weights) / weights.sum()
