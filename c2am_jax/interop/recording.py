"""A recorded run of the PyTorch reference: its inputs, and comparison with its outputs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.ops.anchors import SIZE_DIVISOR
from c2am_jax.structures import Inputs, Proposals, RoISamples

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


class Recording:
    """One ``.npz`` of recorded outputs; arrays by name, large ones as every n-th value of the PyTorch layout."""

    def __init__(self, path: str | Path):
        """Read the file.

        Raises:
          UserError: no such file, or one of another form.
        """
        self.path = Path(path)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                self.arrays: dict[str, np.ndarray] = dict(file)
            self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))
            self.kind: str = self.meta["kind"]
            self.images = len(self.meta["sizes"])
            self.steps: int = self.meta.get("steps", 0)  # of a training trajectory, else 0
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file") from None
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: not a recording of the reference: {error}") from None

    def __getitem__(self, name: str) -> np.ndarray:
        """The array `name`, stored whole."""
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        """Whether it is recorded, whole or as a sample."""
        return name in self.arrays or f"{name}.sample" in self.arrays

    def error(self, name: str, value: Any) -> float:
        """Largest absolute difference over the largest recorded magnitude; inf for another shape.

        `value` is the whole array in the PyTorch layout.
        """
        value = np.asarray(value)
        if name in self.arrays:
            expected = self.arrays[name]
            if value.shape != expected.shape:
                return float("inf")
        else:
            expected = self.arrays[f"{name}.sample"]
            if value.shape != tuple(self.arrays[f"{name}.shape"]):
                return float("inf")
            value = np.ascontiguousarray(value).reshape(-1)[:: int(self.arrays[f"{name}.stride"])]
        difference = np.abs(expected.astype(np.float64) - value.astype(np.float64))
        return float(difference.max(initial=0) / max(np.abs(expected).max(initial=0), 1e-12))

    @property
    def image_hw(self) -> np.ndarray:
        """Sizes inside the padding: int32 [B, 2]."""
        return np.array(self.meta["sizes"], np.int32)

    @property
    def scale(self) -> np.ndarray:
        """Network input over original image, (w, h, w, h): float32 [4]."""
        return np.tile(np.array(self.meta["scale_factor"], np.float32), 2)

    def inputs(self) -> Inputs:
        """The batch as the detector gets it, with full-size masks.

        Raises:
          UserError: the images were padded by another rule than ours.
        """
        padded = -(-self.image_hw // SIZE_DIVISOR) * SIZE_DIVISOR
        if padded.tolist() != [list(shape) for shape in self.meta.get("pad_shapes", padded)]:
            raise UserError(f"{self.path}: pad_shapes must be the image sizes rounded up to {SIZE_DIVISOR}")
        height, width = self.meta["batch_shape"][2:] if "batch_shape" in self.meta else padded.max(0).tolist()
        most = max(self[f"gt_boxes_{i}"].shape[0] for i in range(self.images))
        image = np.zeros((self.images, height, width, 3), np.float32)
        boxes = np.zeros((self.images, most, 4), np.float32)
        labels = np.zeros((self.images, most), np.int32)
        masks = np.zeros((self.images, most, height, width), np.uint8)
        valid = np.zeros((self.images, most), bool)
        for i, (h, w) in enumerate(self.image_hw):
            count = self[f"gt_boxes_{i}"].shape[0]
            image[i, :h, :w] = (self[f"image_{i}"].astype(np.float32) - MEAN) / STD
            boxes[i, :count] = self[f"gt_boxes_{i}"]
            labels[i, :count] = self[f"gt_labels_{i}"]
            bits = np.unpackbits(self[f"gt_masks_{i}.bits"], axis=1)[:, : h * w]
            masks[i, :count, :h, :w] = bits.reshape(count, h, w)
            valid[i, :count] = True
        frames = np.broadcast_to(np.array([0, 0, width, height], np.float32), boxes.shape)
        arrays = (image, self.image_hw, boxes, labels, masks, frames, valid)
        return Inputs(*(jnp.asarray(a) for a in arrays))

    def proposals(self, *, prefix: str = "", size: int) -> Proposals:
        """Recorded proposals, padded to `size` per image; `prefix` "", "train_" or "fixed_" (these have no scores)."""
        boxes = np.zeros((self.images, size, 4), np.float32)
        scores = np.zeros((self.images, size), np.float32)
        valid = np.zeros((self.images, size), bool)
        for i in range(self.images):
            own = self[f"{prefix}proposals_{i}"]
            boxes[i, : len(own)], valid[i, : len(own)] = own, True
            if f"{prefix}proposal_scores_{i}" in self:
                scores[i, : len(own)] = self[f"{prefix}proposal_scores_{i}"]
        return Proposals(*(jnp.asarray(a) for a in (boxes, scores, valid)))

    def roi_samples(self, stage: int, *, size: int, background: int) -> RoISamples:
        """Recorded RoIs that the second stage trained on, padded to `size` per image."""
        boxes = np.zeros((self.images, size, 4), np.float32)
        labels = np.full((self.images, size), background, np.int32)
        gt_index = np.zeros((self.images, size), np.int32)
        positive, is_gt, valid = (np.zeros((self.images, size), bool) for _ in range(3))
        for i in range(self.images):
            key = f"sample_roi_s{stage}_{i}"
            rois, positives = self[f"{key}.rois"], len(self[f"{key}.pos_inds"])
            boxes[i, : len(rois)], valid[i, : len(rois)] = rois, True
            labels[i, :positives] = self[f"{key}.pos_labels"]
            gt_index[i, :positives] = self[f"{key}.pos_gt"]
            positive[i, :positives] = True
            is_gt[i, :positives] = self[f"{key}.pos_inds"] < len(self[f"gt_boxes_{i}"])
        return RoISamples(*(jnp.asarray(a) for a in (boxes, labels, gt_index, positive, is_gt, valid)))
