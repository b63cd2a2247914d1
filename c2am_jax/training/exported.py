"""A trained detector as one StableHLO program with the weights inside, by `jax.export`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from c2am_jax.data.sampler import fitting_bucket, target_size
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.structures import Batch
from c2am_jax.training.restore import TrainedDetector


@dataclasses.dataclass(frozen=True)
class ExportShape:
    """What is fixed in an exported detector.

    Attributes:
      batch: images per call, B.
      image_hw: (H, W) of the images given.
      bucket: (H', W') of the network's input.
      short_side, max_side: of the resized image, as in evaluation.
    """

    batch: int
    image_hw: tuple[int, int]
    bucket: tuple[int, int]
    short_side: int
    max_side: int

    def target_hw(self, sizes: jax.Array) -> jax.Array:
        """Sizes [B, 2] of images in the network's input: `data.sampler.target_size` in whole numbers.

        An image that would not fit in the bucket, such as an upright one in a file for wide ones, becomes smaller.
        """
        long, short = sizes.max(1, keepdims=True), sizes.min(1, keepdims=True)
        by_short = self.short_side * long <= self.max_side * short
        over, under = jnp.where(by_short, self.short_side, self.max_side), jnp.where(by_short, short, long)
        for axis in (0, 1):
            length, limit = sizes[:, axis : axis + 1], self.bucket[axis]
            too_long = length * over > limit * under
            over, under = jnp.where(too_long, limit, over), jnp.where(too_long, length, under)
        rounded = (2 * sizes * over + under) // (2 * under)
        return jnp.clip(rounded, 1, jnp.asarray(self.bucket, jnp.int32))


def export_shape(settings: DataSettings, size: Sequence[int] | None, batch: int) -> ExportShape:
    """Shapes for images of `size` (default: the config's square canvas): its resized size decides the bucket.

    Raises:
      UserError: sizes below 1, or images that fit in none of the config's padded shapes.
    """
    height, width = size or (settings.canvas, settings.canvas)
    if min(height, width, batch) < 1:
        raise UserError(f"--size {height} {width} --batch {batch}: all must be at least 1")
    target = target_size(np.array([[height, width]]), settings.test_short_side, settings.max_side)
    bucket = settings.buckets[int(fitting_bucket(np.maximum(target, 1), settings.buckets)[0])]
    return ExportShape(batch, (height, width), bucket, settings.test_short_side, settings.max_side)


def predict_function(
    trained: TrainedDetector, shape: ExportShape, threshold: float
) -> Callable[[jax.Array, jax.Array], dict[str, jax.Array]]:
    """``(images uint8 [B, H, W, 3], sizes int32 [B, 2]) -> dict`` as `describe` says, the weights inside."""
    detector = jax.tree.map(np.asarray, trained.detector)  # of no device: its arrays become constants

    def predict(images: jax.Array, sizes: jax.Array) -> dict[str, jax.Array]:
        sizes = jnp.clip(sizes, 1, jnp.asarray(shape.image_hw, jnp.int32))
        target = shape.target_hw(sizes)
        count = shape.batch
        batch = Batch(
            image=images,
            source_hw=sizes,
            target_hw=target,
            flip=jnp.zeros((count,), bool),
            boxes=jnp.zeros((count, 0, 4)),
            labels=jnp.zeros((count, 0), jnp.int32),
            masks=jnp.zeros((count, 0, 8, 1), jnp.uint8),
            valid=jnp.zeros((count, 0), bool),
            image_id=jnp.zeros((count,), jnp.int32),
        )
        inputs = preprocess(batch, shape.bucket, **trained.experiment.data.pixels)
        model = jax.tree.map(jnp.asarray, detector).module()
        found = model.predict(inputs.image, inputs.image_hw)
        ratio = (sizes / target).astype(jnp.float32)[:, None, ::-1]
        limit = sizes.astype(jnp.float32)[:, None, ::-1]
        boxes = jnp.clip(found.boxes * jnp.tile(ratio, 2), 0, jnp.tile(limit, 2))
        valid = found.valid & (found.scores >= threshold)
        return {
            "boxes": jnp.where(valid[..., None], boxes, 0),
            "scores": jnp.where(valid, found.scores, 0),
            "labels": jnp.where(valid, found.labels, 0),
            "masks": jnp.where(valid[..., None, None], found.masks, 0),
            "valid": valid,
        }

    return predict


def inputs_of(shape: ExportShape) -> dict[str, jax.ShapeDtypeStruct]:
    """The arguments of `predict_function`, in order."""
    return {
        "images": jax.ShapeDtypeStruct((shape.batch, *shape.image_hw, 3), jnp.uint8),
        "sizes": jax.ShapeDtypeStruct((shape.batch, 2), jnp.int32),
    }


def describe(
    trained: TrainedDetector,
    shape: ExportShape,
    threshold: float,
    outputs: Mapping[str, Any],
    file_format: Mapping[str, Any],
) -> dict[str, Any]:
    """What the file beside the exported one says.

    Args:
      trained: the detector.
      shape: of the images.
      threshold: lowest score.
      outputs: shape and dtype of each.
      file_format: how the file is read.
    """
    meaning = {
        "boxes": "x1, y1, x2, y2 in pixels of the image; 0 where not valid",
        "scores": "best first",
        "labels": "index into classes",
        "masks": "probabilities in the frame of the box: resize to the box, inside from 0.5 on",
        "valid": f"which rows are detections (scores from {threshold:g} on)",
    }
    inputs = {
        "images": "RGB, each image in the upper left corner; what lies beyond its size is not looked at",
        "sizes": "height and width of each image",
    }
    table = trained.categories
    return {
        "experiment": trained.experiment.name,
        "step": trained.step,
        **file_format,
        "jax": jax.__version__,
        "threshold": threshold,
        "network_input": list(shape.bucket),
        "inputs": {
            name: {"dtype": str(aval.dtype), "shape": list(aval.shape), "meaning": inputs[name]}
            for name, aval in inputs_of(shape).items()
        },
        "outputs": {
            name: {"dtype": str(aval.dtype), "shape": list(aval.shape), "meaning": meaning[name]}
            for name, aval in outputs.items()
        },
        "classes": [{"id": int(category), "name": name} for category, name in zip(table.ids, table.names, strict=True)],
    }


def export_detector(
    trained: TrainedDetector, shape: ExportShape, *, platforms: Sequence[str], threshold: float
) -> tuple[bytes, dict[str, Any]]:
    """The exported file's content and its description.

    What depends on the platform inside (RoIAlign, NMS, resizing) is chosen by the platform that the file runs on, not
    by the one that writes it.
    """
    function = jax.jit(predict_function(trained, shape, threshold))
    exported = jax_export.export(function, platforms=platforms)(*inputs_of(shape).values())
    file_format = {
        "format": "stablehlo",
        "platforms": list(exported.platforms),
        "calling_convention": exported.calling_convention_version,
    }
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return bytes(exported.serialize()), describe(trained, shape, threshold, outputs, file_format)
