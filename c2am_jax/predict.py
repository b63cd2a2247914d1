"""Draw what a trained detector finds in pictures.

    python -m c2am_jax.predict IMAGE|DIR ... --workdir DIR [--out DIR] [--threshold T] [--batch N] [--step N|best]
                               [--size H W] [--categories FILE] [--video OUT.gif|OUT.webp] [--fps F]
    python -m c2am_jax.predict DIR --annotations FILE.json --workdir DIR ...     only the pictures that the json lists

Folders are walked with their subfolders. Writes OUT/NAME.jpg or .png for each picture, in the same subfolders,
OUT/predictions.json, and OUT/classes.json, which says what its category ids mean. Pictures that can't be used are
named and skipped.
Exit status: 0, or 1 if pictures were skipped, or 2 with one line if nothing could be done.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from c2am_jax.data.jpeg import ImageFault
from c2am_jax.data.picture_files import PictureFile, listed_pictures, named_pictures
from c2am_jax.errors import STEP_HELP, UserError, checkpoint_step, guarded
from c2am_jax.files import is_remote
from c2am_jax.progress import Counter
from c2am_jax.storage import check_output
from c2am_jax.wording import noun

NAMED = 5  # faults named where none of the pictures could be used
READABLE = 480  # pixels of the longer side, to which smaller pictures are enlarged as often as it goes
VIDEO_SUFFIXES = (".gif", ".webp")


def _entries(source: PictureFile, found: Any, categories: Any) -> list[dict[str, Any]]:
    """Entries of an LVIS results file, with names added; scorers ignore those."""
    entries = []
    for box, score, label, rle in zip(found.boxes, found.scores, found.labels, found.rles, strict=True):
        x1, y1, x2, y2 = box.tolist()
        entries.append(
            {
                "image_id": source.image_id,
                "category_id": int(categories.ids[label]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(score),
                "segmentation": rle,
                "file_name": str(source.path),
                "category_name": categories.names[label],
            }
        )
    return entries


def predict(
    inputs: Sequence[str],
    workdir: str,
    out: str,
    *,
    threshold: float = 0.5,
    batch: int = 4,
    step: int | str | None = None,
    size: Sequence[int] | None = None,
    categories: str | None = None,
    video: str | None = None,
    fps: float = 10.0,
    annotations: str | None = None,
) -> list[str]:
    """Run the command; returns what was wrong with the pictures that were skipped.

    Raises:
      UserError: nothing could be done: no run, no picture, or a wrong option.
    """
    # JAX and TensorFlow take seconds to import: wrong options are told before
    from c2am_jax.evaluation.detect import PictureDetector
    from c2am_jax.evaluation.result_classes import BESIDE
    from c2am_jax.files import replace_text
    from c2am_jax.mesh import data_mesh
    from c2am_jax.training.restore import load_detector
    from c2am_jax.visualization.draw import draw

    folder = Path(out)
    sources, faults = listed_pictures(annotations, inputs[0]) if annotations else named_pictures(inputs, folder)
    if not sources:
        raise UserError(_nothing(faults))
    places = {source.path.resolve() for source in sources}
    if any(place.parent == folder.resolve() for place in places) or any(
        (folder / source.drawing).resolve() in places for source in sources
    ):
        raise UserError(f"--out {out} is the folder of the pictures: drawings would replace them; name another")
    trained = load_detector(workdir, step, categories=categories)
    detect = PictureDetector(
        trained.experiment, trained.detector, data_mesh(), batch_size=batch, size=size, threshold=threshold
    )
    folder.mkdir(parents=True, exist_ok=True)

    def pictures() -> Iterator[tuple[tuple[PictureFile, np.ndarray], np.ndarray]]:
        from c2am_jax.data.pictures import read_picture

        with Counter(len(sources), "predict", "picture") as bar:
            for source in sources:
                bar.update()
                try:
                    pixels = read_picture(source.path, hw=source.hw)
                    detect.bucket((pixels.shape[0], pixels.shape[1]))
                except (ImageFault, OSError, UserError) as error:
                    faults.append(f"{source.path}: {error}")
                    continue
                yield (source, pixels), pixels

    done: dict[int, list[dict[str, Any]]] = {}
    best: tuple[float, int, Path] = (0.0, -1, folder)
    for (source, pixels), found in detect(pictures()):
        best = max(best, (found.best_score, found.best_label, source.path))
        drawn = draw(
            pixels,
            found.boxes,
            found.labels,
            found.scores,
            found.masks(),
            names=trained.categories.names,
            enlarge=max(1, READABLE // max(pixels.shape[:2])),
        )
        place = folder / source.drawing
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(place, quality=95)
        done[source.image_id] = _entries(source, found, trained.categories)
    if not done:
        raise UserError(_nothing(faults))
    ordered = [source for source in sources if source.image_id in done]
    entries = [entry for source in ordered for entry in done[source.image_id]]
    replace_text(folder / "predictions.json", "[" + ",\n".join(map(json.dumps, entries)) + "]\n")
    replace_text(folder / BESIDE, json.dumps(trained.categories.as_dicts(), indent=1))
    if video:
        _write_video(Path(video), [folder / source.drawing for source in ordered], fps)
    kinds = len({entry["category_id"] for entry in entries})
    print(
        f"step {trained.step}: {len(entries)} {noun(len(entries), 'detection')} of {kinds} {noun(kinds, 'category')}, "
        f"scores from {threshold:g} on, in {len(done)} {noun(len(done), 'picture')}: {folder}"
    )
    if not entries:
        print(_too_high(threshold, len(done), best, trained.categories.names))
    if annotations:
        print(f"score them: python eval.py --annotations {annotations} --predictions {folder / 'predictions.json'}")
        if threshold > 0:
            print(
                "AP counts detections of low scores too: predict with --threshold 0 before you compare it with others"
            )
    return faults


def _nothing(faults: Sequence[str]) -> str:
    """The first faults and how many more there are, as one line."""
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    return "; ".join(faults[:NAMED]) + more


def _too_high(threshold: float, pictures: int, best: tuple[float, int, Path], names: Sequence[str]) -> str:
    """What to tell when no detection has a score of `threshold` or more."""
    score, label, path = best
    where = f"{pictures} {noun(pictures, 'picture')}"
    if score <= 0:
        return (
            f"no detection at all in {where}, whatever the threshold: train for longer, or on more pictures like these"
        )
    return (
        f"no detection has a score of {threshold:g} or more in {where}; the best is {_floored(score, 2):g} "
        f"({names[label]}, in {path}): try --threshold {_floored(score, 1):g}"
    )


def _floored(value: float, digits: int) -> float:
    """A positive number with so many significant digits, never larger than it is."""
    place = digits - 1 - math.floor(math.log10(value))
    return round(math.floor(value * 10**place) / 10**place, place)


def _write_video(path: Path, frames: Sequence[Path], fps: float) -> None:
    """An animation of pictures; all get the size of the first."""

    def rest(size: tuple[int, int]) -> Iterator[Image.Image]:
        for frame in frames[1:]:
            with Image.open(frame) as picture:
                yield picture.convert("RGB").resize(size)

    with Image.open(frames[0]) as first:
        start = first.convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    start.save(path, save_all=True, append_images=rest(start.size), duration=round(1000 / fps), loop=0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="c2am_jax.predict", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|DIR", help="pictures, and folders with their subfolders")
    parser.add_argument(
        "--annotations", metavar="FILE", help="json (LVIS or COCO layout) of the pictures to take from the one DIR"
    )
    parser.add_argument("--workdir", required=True, help="of the run whose checkpoint is taken, local or gs://")
    parser.add_argument("--out", default="predictions", metavar="DIR", help="default: predictions")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="T", help="lowest score, 0 to 1; default 0.5")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="pictures at once; default 4")
    parser.add_argument("--step", type=checkpoint_step, metavar="N|best", help=STEP_HELP)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="network input; default: the config's")
    parser.add_argument("--categories", metavar="FILE", help="json of the categories, if the workdir has none")
    parser.add_argument("--video", metavar="FILE", help="the drawings as an animation, .gif or .webp")
    parser.add_argument("--fps", type=float, default=10.0, metavar="F", help="pictures per second of --video")
    return parser


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g} is not between 0 and 1")
    if options.annotations and (len(options.inputs) != 1 or not Path(options.inputs[0]).is_dir()):
        raise UserError("--annotations lists the pictures: give the one folder they are in, and no picture files")
    if is_remote(options.out):
        raise UserError(
            f"--out {options.out}: drawings are written into a local folder; copy it with gcloud storage cp -r"
        )
    if options.batch < 1:
        raise UserError(f"--batch {options.batch} must be at least 1")
    if options.video and Path(options.video).suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--video {options.video}: animations are written as {' and '.join(VIDEO_SUFFIXES)}")
    if not 0 < options.fps <= 1000:
        raise UserError(f"--fps {options.fps:g} is not between 0 and 1000")
    check_output("--out", options.out, folder=True)
    if options.video:
        check_output("--video", options.video)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    _check(options)
    faults = predict(**vars(options))
    for fault in faults:
        print(f"skipped: {' '.join(fault.split())}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} skipped", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
