"""Detections of images by a trained detector: pictures with boxes, masks and names, and one json.

    python -m c2am_jax.predict IMAGE|DIR ... --workdir DIR [--out DIR] [--threshold T] [--batch N] [--step N]
                               [--video FILE]

A folder stands for the images in it, in the order of their names, so the frames of a video work the same; `--video`
joins the pictures to one animation (.gif or .webp). Images that cannot be read are named and left out, with exit
status 1.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools import mask as coco_mask

from c2am_jax.data.lvis import CategoryTable
from c2am_jax.data.masks import MASK_SIZE
from c2am_jax.data.pipeline import PipelineSettings
from c2am_jax.data.sampler import fitting_bucket, target_size
from c2am_jax.errors import UserError
from c2am_jax.evaluation.encoding import encode_image
from c2am_jax.evaluation.predict import make_predict
from c2am_jax.structures import Batch
from c2am_jax.training.restore import Run, categories_of, restore
from c2am_jax.training.step import data_mesh
from c2am_jax.visualization import draw

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
FRAME_MS = 100
LEAST_SIDE = 400  # pixels of a picture, for readable names


@dataclasses.dataclass(frozen=True)
class Found:
    """Detections of one image above the threshold, best first.

    Attributes:
      path: of the image.
      image: uint8 RGB [h, w, 3].
      boxes: results entries with "bbox" (x, y, w, h) and "category_id".
      masks: results entries with "segmentation" (RLE), the same detections.
    """

    path: Path
    image: np.ndarray
    boxes: list[dict]
    masks: list[dict]


def image_files(inputs: Sequence[str]) -> list[Path]:
    """The files that the arguments name. Raises UserError for what does not exist and for a folder without images."""
    files = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return files


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 RGB [h, w, 3], turned upright as its EXIF data say. Raises UserError if it cannot be read."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16 bits
                upright = Image.fromarray((np.asarray(upright, np.int64) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged image ({error})") from None


class Detector:
    """A run's detector for images of any size."""

    def __init__(self, run: Run, categories: CategoryTable, *, batch_size: int, threshold: float):
        """Raises UserError if the categories are not those of the detector."""
        if len(categories) != run.config.model.num_classes:
            raise UserError(
                f"the run's detector has {run.config.model.num_classes} classes, its categories.json {len(categories)}"
            )
        self.settings = PipelineSettings.from_dict(run.config.data.to_dict())
        self._run, self._categories = run, categories
        self._batch_size, self._threshold = batch_size, threshold
        mesh = data_mesh(jax.devices()[:1])
        self._predict = make_predict(run.functional, mesh, mean=run.config.data.mean, std=run.config.data.std)

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """The image, made smaller if it is larger than the source canvas."""
        scale = self.settings.canvas / max(image.shape[:2])
        if scale >= 1:
            return image
        height, width = (max(int(side * scale + 0.5), 1) for side in image.shape[:2])
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def __call__(self, images: Sequence[tuple[Path, np.ndarray]]) -> Iterator[Found]:
        """Detections of images that fit the same bucket, at most `batch_size` of them."""
        sources = [self.fitted(image) for _, image in images]
        batch, bucket = self._batch(sources)
        found = jax.tree.map(np.asarray, self._predict(self._run.state.params, self._run.state.rest, batch, bucket))
        for row, (path, image) in enumerate(images):
            keep = found.valid[row] & (found.scores[row] >= self._threshold)
            texts = encode_image(
                row,
                found.boxes[row][keep],
                found.scores[row][keep],
                self._categories.ids[found.labels[row][keep]],
                found.masks[row][keep],
                batch.target_hw[row],
                np.array(image.shape[:2]),
            )
            yield Found(path, image, *([json.loads(text) for text in lines] for lines in texts))

    def bucket_of(self, image: np.ndarray) -> tuple[int, int]:
        """The padded shape that an image runs in."""
        settings = self.settings
        target = target_size(np.array(self.fitted(image).shape[:2]), settings.test_short_side, settings.max_side)
        return settings.buckets[int(fitting_bucket(target[None], settings.buckets)[0])]

    def _batch(self, sources: Sequence[np.ndarray]) -> tuple[Batch, tuple[int, int]]:
        settings, rows = self.settings, self._batch_size
        pixels = np.zeros((rows, settings.canvas, settings.canvas, 3), np.uint8)
        hw = np.ones((rows, 2), np.int32)
        for row, source in enumerate(sources):
            pixels[row, : source.shape[0], : source.shape[1]] = source
            hw[row] = source.shape[:2]
        target = target_size(hw, settings.test_short_side, settings.max_side)
        target[len(sources) :] = 1
        batch = Batch(
            image=pixels,
            source_hw=hw,
            target_hw=target,
            flip=np.zeros(rows, bool),
            boxes=np.zeros((rows, 1, 4), np.float32),
            labels=np.zeros((rows, 1), np.int32),
            masks=np.zeros((rows, 1, MASK_SIZE, MASK_SIZE // 8), np.uint8),
            valid=np.zeros((rows, 1), bool),
            image_id=np.zeros(rows, np.int64),
        )
        return batch, settings.buckets[int(fitting_bucket(target[:1], settings.buckets)[0])]


def picture(found: Found, categories: CategoryTable) -> np.ndarray:
    """The image with its detections, the best on top; small images are enlarged."""
    classes = [categories.class_of[entry["category_id"]] for entry in found.boxes]
    corners = np.array([entry["bbox"] for entry in found.boxes]).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    texts = [f"{categories.names[k]} {e['score']:.2f}" for k, e in zip(classes, found.boxes, strict=True)]
    masks = [coco_mask.decode(entry["segmentation"]) for entry in found.masks]
    scale = max(1, -(-LEAST_SIDE // min(found.image.shape[:2])))
    return draw(found.image, corners[::-1], classes[::-1], texts[::-1], masks[::-1], scale=scale)


def batches(
    files: Sequence[Path], detector: Detector, batch_size: int, bad: list[str]
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Images of one bucket at a time, in order; what cannot be read is added to `bad`."""
    waiting: list[tuple[Path, np.ndarray]] = []
    for file in files:
        try:
            image = read_image(file)
        except UserError as error:
            bad.append(str(error))
            continue
        if waiting and (len(waiting) == batch_size or detector.bucket_of(waiting[0][1]) != detector.bucket_of(image)):
            yield waiting
            waiting = []
        waiting.append((file, image))
    if waiting:
        yield waiting


def run(options: argparse.Namespace) -> int:
    """Predict, draw, write; the exit status."""
    files = image_files(options.inputs)
    restored = restore(options.workdir, options.step, mesh=data_mesh(jax.devices()[:1]))
    categories = categories_of(options.workdir)
    detector = Detector(restored, categories, batch_size=options.batch, threshold=options.threshold)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    bad: list[str] = []
    entries, frames, written = [], [], set()
    for batch in batches(files, detector, options.batch, bad):
        for found in detector(batch):
            drawn = Image.fromarray(picture(found, categories))
            target = out / f"{found.path.stem}.png"
            if target in written:  # the same name in another folder
                target = out / f"{found.path.parent.name}_{found.path.stem}.png"
            written.add(target)
            drawn.save(target)
            if options.video:
                frames.append(drawn)
            detections = [
                {
                    "category": categories.names[categories.class_of[box["category_id"]]],
                    "category_id": box["category_id"],
                    "score": box["score"],
                    "bbox": box["bbox"],
                    "segmentation": mask["segmentation"],
                }
                for box, mask in zip(found.boxes, found.masks, strict=True)
            ]
            height, width = found.image.shape[:2]
            entries.append(
                {"file": str(found.path), "height": height, "width": width, "picture": target.name}
                | {"detections": detections}
            )
            print(f"{found.path}: {len(detections)} detections -> {target}")
    (out / "predictions.json").write_text(json.dumps(entries, indent=1))
    if frames:
        frames[0].save(options.video, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    for line in bad:
        print(f"left out: {line}", file=sys.stderr)
    if not entries:
        raise UserError(f"none of the {len(files)} images could be read")
    print(f"{len(entries)} images, {sum(len(e['detections']) for e in entries)} detections: {out / 'predictions.json'}")
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: exit status 0, 1 if images were left out, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m c2am_jax.predict", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|DIR")
    parser.add_argument("--workdir", required=True, help="of a training run")
    parser.add_argument("--step", type=int, help="checkpoint; default the newest")
    parser.add_argument("--out", default="predictions", help="folder of the pictures and predictions.json")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score that is shown")
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--video", default="", metavar="FILE.gif|webp", help="also join the pictures to an animation")
    options = parser.parse_args(arguments)
    if options.batch < 1 or not 0 <= options.threshold <= 1:
        parser.error("--batch must be at least 1 and --threshold between 0 and 1")
    if options.video and Path(options.video).suffix.lower() not in (".gif", ".webp"):
        parser.error("--video must end in .gif or .webp")
    try:
        return run(options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
