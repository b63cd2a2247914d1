"""A trained detector on pictures that belong to no data set."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.data.pipeline import NO_IMAGE, fitted
from c2am_jax.data.sampler import fitting_bucket, target_size
from c2am_jax.data.tensorflow_host import tf
from c2am_jax.errors import UserError
from c2am_jax.evaluation.encoding import encode_image
from c2am_jax.evaluation.inference import make_predict
from c2am_jax.experiment import Experiment
from c2am_jax.mesh import on_devices, replicated
from c2am_jax.models.functional import Detector
from c2am_jax.structures import Batch, Detections

Key = TypeVar("Key")
STRIDE = 32  # that sides of the network's input are multiples of


@dataclasses.dataclass(frozen=True)
class Found:
    """Detections of one picture at its own size, best first.

    Attributes:
      boxes: float64 [D, 4], xyxy.
      scores: float64 [D].
      labels: int64 [D], classes.
      rles: D masks as LVIS results hold them, {"size": [h, w], "counts": text}.
      best_score, best_label: of the best detection, also below the threshold; 0 and -1 if there was none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    rles: list[Any]
    best_score: float
    best_label: int

    def masks(self) -> list[np.ndarray]:
        """The D masks at the size of the picture, bool [h, w] each."""
        return [coco_mask.decode(rle).astype(bool) for rle in self.rles]


@dataclasses.dataclass(frozen=True)
class _Waiting(Generic[Key]):
    key: Key
    hw: tuple[int, int]
    pixels: np.ndarray
    target_hw: np.ndarray


class PictureDetector:
    """Detections of pictures of any size, in batches of static shape.

    Each picture is resized as in evaluation and joins the batch of its padded shape, so that a few programs do for all.
    """

    def __init__(
        self,
        experiment: Experiment,
        detector: Detector,
        mesh: Mesh,
        *,
        batch_size: int = 1,
        size: Sequence[int] | None = None,
        threshold: float = 0.0,
    ):
        """Compiles nothing yet.

        Args:
          experiment, detector: of the run.
          mesh: devices that share a batch.
          batch_size: rounded up to a multiple of the devices.
          size: (H, W) of the network's input; pictures become as large as fits in. Default: as in evaluation.
          threshold: detections of lower scores are left out.

        Raises:
          UserError: sides that are no multiples of 32.
        """
        if size is not None and (min(size) < STRIDE or any(side % STRIDE for side in size)):
            raise UserError(f"--size {' '.join(map(str, size))}: height and width must be multiples of {STRIDE}")
        self.settings = experiment.data
        self._size = None if size is None else (size[0], size[1])
        self._canvas = max(self.settings.canvas, *(size or (0,)))
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._threshold = threshold
        self._mesh, self._detector = mesh, jax.device_put(detector, replicated(mesh))
        self._predict = make_predict(mesh, experiment)

    def bucket(self, hw: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
        """Padded shape for a picture of this height and width, and its own size in there.

        Raises:
          UserError: the config's shapes hold no such picture.
        """
        if self._size is not None:
            scale = min(self._size[0] / hw[0], self._size[1] / hw[1])
            target = np.maximum((np.asarray(hw) * scale + 0.5).astype(np.int32), 1)
            return self._size, np.minimum(target, self._size)
        target = np.maximum(target_size(np.asarray(hw), self.settings.test_short_side, self.settings.max_side), 1)
        return self.settings.buckets[int(fitting_bucket(target[None], self.settings.buckets)[0])], target

    def __call__(self, pictures: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, Found]]:
        """Detections of every (key, uint8 [h, w, 3]), as batches fill up: in order for pictures of one shape."""
        waiting: dict[tuple[int, int], list[_Waiting[Key]]] = {}
        for key, pixels in pictures:
            hw = pixels.shape[0], pixels.shape[1]
            bucket, target = self.bucket(hw)
            if max(hw) > self._canvas:
                smaller, _ = fitted(tf.constant(pixels), tf.zeros((0, 4)), self._canvas)
                pixels = np.asarray(smaller)
            batch = waiting.setdefault(bucket, [])
            batch.append(_Waiting(key, hw, pixels, target))
            if len(batch) == self._batch_size:
                yield from self._detect(bucket, waiting.pop(bucket))
        for bucket, batch in waiting.items():
            yield from self._detect(bucket, batch)

    def _detect(self, bucket: tuple[int, int], pictures: list[_Waiting[Key]]) -> Iterator[tuple[Key, Found]]:
        batch = on_devices(self._batch(pictures), self._mesh)
        found = jax.tree.map(np.asarray, self._predict(self._detector, batch, bucket))
        for row, picture in enumerate(pictures):
            yield picture.key, self._found(jax.tree.map(lambda array, row=row: array[row], found), picture)

    def _batch(self, pictures: list[_Waiting[Key]]) -> Batch:
        size, canvas = self._batch_size, self._canvas
        image = np.zeros((size, canvas, canvas, 3), np.uint8)
        source, target = np.ones((size, 2), np.int32), np.ones((size, 2), np.int32)
        image_id = np.full(size, NO_IMAGE, np.int64)
        for row, picture in enumerate(pictures):
            height, width = picture.pixels.shape[:2]
            image[row, :height, :width] = picture.pixels
            source[row], target[row], image_id[row] = (height, width), picture.target_hw, row
        nothing: dict[str, Any] = {
            "flip": np.zeros(size, bool),
            "boxes": np.zeros((size, 0, 4), np.float32),
            "labels": np.zeros((size, 0), np.int32),
            "masks": np.zeros((size, 0, MASK_SIZE, MASK_SIZE // 8), np.uint8),
            "valid": np.zeros((size, 0), bool),
        }
        given: dict[str, Any] = {"image": image, "source_hw": source, "target_hw": target, "image_id": image_id}
        return Batch(**given, **nothing)

    def _found(self, detections: Detections, picture: _Waiting[Key]) -> Found:
        found = {f.name: np.asarray(getattr(detections, f.name)) for f in dataclasses.fields(detections)}
        keep = found["valid"] & (found["scores"] >= self._threshold)
        scores, labels = found["scores"][keep], found["labels"][keep]
        boxes, masks = encode_image(
            0, found["boxes"][keep], scores, labels, found["masks"][keep], picture.target_hw, np.asarray(picture.hw)
        )
        corners = np.array([json.loads(line)["bbox"] for line in boxes]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        rles = [json.loads(line)["segmentation"] for line in masks]
        score, label = 0.0, -1
        if found["valid"].any():
            best = int(np.where(found["valid"], found["scores"], -1).argmax())
            score, label = float(found["scores"][best]), int(found["labels"][best])
        return Found(corners, scores.astype(float), labels.astype(int), rles, score, label)
