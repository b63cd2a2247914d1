"""What the 112x112 masks in the frame of their box keep of the real ones: IoU per instance; one JSON line per question.

    python benchmarks/mask_round_trip.py lvis_val_100.json

`pasted`: the stored mask, pasted back as evaluation pastes predictions, against the pycocotools mask.
`targets`: 28x28 mask-head targets from the stored mask against those from the full one, for RoIs that are the box
itself and boxes shifted and scaled as proposals are. Instances under 32x32 pixels (area of the mask) also by
themselves.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.data.box_masks import MASK_SIZE, BadMask, box_mask, rasterise
from c2am_jax.data.shards import trainable_box
from c2am_jax.evaluation.encoding import paste
from c2am_jax.ops.masks import mask_targets

GROUP = 16  # instances whose targets are made at once
CANVAS = 640  # holds every LVIS image
PERCENTILES = (1, 5, 25, 50)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two 0/1 arrays; 1 if both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def instances(content: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(raster, box, mask in the frame of the box) of all that can train."""
    hw = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    found = []
    for annotation in content["annotations"]:
        size = hw[annotation["image_id"]]
        try:
            box = trainable_box(annotation["bbox"], size)
            found.append(
                (rasterise(annotation["segmentation"], size), box, box_mask(annotation["segmentation"], box, size))
            )
        except BadMask:
            continue
    return found


def pasted_iou(raster: np.ndarray, box: np.ndarray, frame: np.ndarray) -> float:
    """IoU of the pasted mask with the raster, over the whole image."""
    region, (top, left) = paste(frame, box, raster.shape)
    whole = np.zeros(raster.shape, bool)
    whole[top : top + region.shape[0], left : left + region.shape[1]] = region
    return iou(whole, raster)


def jittered(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes [n, 4] as proposals have them: shifted by up to 15 % of their sides and up to 20 % larger or smaller."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + sides * rng.uniform(-0.15, 0.15, boxes.shape)).astype(np.float32)


def target_iou(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], rois: np.ndarray) -> np.ndarray:
    """IoU of the 28x28 targets from the stored and from the full mask, [n]."""
    make = jax.jit(mask_targets)
    values = []
    for start in range(0, len(found), GROUP):
        group = found[start : start + GROUP]
        full = np.zeros((GROUP, CANVAS, CANVAS), np.uint8)
        stored = np.zeros((GROUP, MASK_SIZE, MASK_SIZE), np.uint8)
        frames, roi = np.tile(np.array([0, 0, 1, 1], np.float32), (2, GROUP, 1))
        for i, (raster, box, frame) in enumerate(group):
            full[i, : raster.shape[0], : raster.shape[1]] = raster
            stored[i], frames[i], roi[i] = frame, box, rois[start + i]
        index, whole = jnp.arange(GROUP), np.tile(np.array([0, 0, CANVAS, CANVAS], np.float32), (GROUP, 1))
        pairs = np.asarray(make(stored, frames, index, roi)), np.asarray(make(full, whole, index, roi))
        values += [iou(a, b) for a, b in zip(*pairs, strict=True)][: len(group)]
    return np.array(values)


def box_fits(raster: np.ndarray, box: np.ndarray) -> bool:
    """Whether the annotated box meets the mask's own with an IoU of at least 0.5; a few of the real ones don't."""
    ys, xs = np.nonzero(raster)
    own = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    sides = np.minimum(own[2:], box[2:]) - np.maximum(own[:2], box[:2])
    common = np.prod(np.maximum(sides, 0))
    return bool(common >= 0.5 * (np.prod(own[2:] - own[:2]) + np.prod(box[2:] - box[:2]) - common))


def summary(question: str, values: np.ndarray, small: np.ndarray, fits: np.ndarray) -> dict[str, Any]:
    """Mean and lower percentiles, of all and of parts."""
    parts = {"all": values, "under_32x32": values[small], "others": values[~small], "box_fits_mask": values[fits]}
    return {
        "question": question,
        **{
            name: {
                "instances": len(part),
                "mean": round(float(part.mean()), 4),
                **{f"p{p}": round(float(np.percentile(part, p)), 4) for p in PERCENTILES},
                "worst": round(float(part.min()), 4),
            }
            for name, part in parts.items()
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="json in the LVIS layout")
    options = parser.parse_args()
    found = instances(json.loads(options.annotations.read_text()))
    small = np.array([raster.sum() < 32**2 for raster, _, _ in found])
    fits = np.array([box_fits(raster, box) for raster, box, _ in found])
    boxes = np.array([box for _, box, _ in found])
    print(json.dumps(summary("pasted", np.array([pasted_iou(*one) for one in found]), small, fits)))
    print(json.dumps(summary("targets, RoI is the box", target_iou(found, boxes), small, fits)))
    shifted = jittered(boxes, np.random.default_rng(0))
    print(json.dumps(summary("targets, RoI is a shifted box", target_iou(found, shifted), small, fits)))


if __name__ == "__main__":
    main()
