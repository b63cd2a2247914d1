"""What an annotation file is like: classes, repeat factors, ground truths, sizes, padding.

    python -m c2am_jax.data.stats A.json [--config NAME_OR_FILE] [--out DIR] [--threshold 1e-3]

Any json of the LVIS or COCO layout, of any size. Sizes and padding are those of the config's `data`, without one those
of LVIS. Prints a report; with --out also writes `stats.json` and `stats.png`, whose left picture is the Zipf plot.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.data import sampler
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.scanned import Scan
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import guarded
from c2am_jax.frequency import GROUPS
from c2am_jax.storage import check_output
from c2am_jax.wording import counted, noun

PERCENTILES = (0, 50, 90, 99, 100)


def statistics(found: Scan, settings: DataSettings, threshold: float) -> dict[str, Any]:
    """Numbers of a scanned file.

    Returns:
      "images", "annotations"; "groups": classes, images and annotations of rare, common and frequent classes;
      "repeat_factors" of classes and images, and the images of an epoch; "per_image": percentiles of ground truths;
      "sizes": percentiles of the images' short and long sides; "larger_than_canvas" and of them "lose_resolution", see
      `sampler.reduced`; "settings" that the padding is of; "buckets": share of the images and of wasted pixels of
      each padded shape, each image resized to the middle one of the short sides.
    """
    hw = np.array([(image.height, image.width) for image in found.images]).reshape(-1, 2)
    label, start = found.label, found.start
    classes = len(found.categories)
    frequency = sampler.image_frequencies(label, start, classes)
    category_factor = sampler.category_repeat_factors(frequency, threshold=threshold)
    image_factor = sampler.image_repeat_factors(label, start, category_factor)
    images = sampler.trainable(hw, start)
    counts = np.diff(start)
    instances = np.bincount(label, minlength=classes)
    middle = sorted(settings.short_sides)[len(settings.short_sides) // 2]
    target = sampler.target_size(hw[images], middle, settings.max_side)
    bucket = sampler.fitting_bucket(target, settings.buckets) if len(images) else np.zeros(0, int)
    shapes = np.array(settings.buckets)
    wasted = 1 - target.prod(-1) / shapes[bucket].prod(-1)
    groups = {}
    for letter in GROUPS:
        own = found.categories.group(letter)
        groups[letter] = {"classes": len(own), "annotations": int(instances[own].sum())}
    return {
        "images": len(hw),
        "images_that_train": len(images),
        "annotations": len(label),
        "classes": classes,
        "classes_without_annotations": int((instances == 0).sum()),
        "groups": groups,
        "repeat_factors": {
            "threshold": threshold,
            "classes_above_1": int((category_factor > 1).sum()),
            "largest": float(category_factor.max(initial=1)),
            "images_above_1": int((image_factor[images] > 1).sum()),
            "epoch_ceil": int(np.ceil(image_factor[images]).sum()),
            "epoch_stochastic": float(image_factor[images].sum().round(1)),
        },
        "per_image": _percentiles(counts) if len(counts) else {},
        "more_than_max_instances": int((counts > settings.max_instances).sum()),
        "sizes": {"short": _percentiles(hw.min(-1)), "long": _percentiles(hw.max(-1))} if len(hw) else {},
        "larger_than_canvas": int((hw.max(-1, initial=0) > settings.canvas).sum()),
        "lose_resolution": sampler.reduced(hw, settings.canvas, middle, settings.max_side)[0],
        "settings": {"short_side": middle, "max_side": settings.max_side, "canvas": settings.canvas},
        "buckets": {
            "x".join(map(str, shape)): {
                "images": float((bucket == i).mean().round(4)) if len(bucket) else 0.0,
                "wasted": float(wasted[bucket == i].mean().round(4)) if (bucket == i).any() else 0.0,
            }
            for i, shape in enumerate(settings.buckets)
        },
        "wasted": float(wasted.mean().round(4)) if len(wasted) else 0.0,
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).round(2).tolist(), strict=True))


def text(name: str, numbers: dict[str, Any], config: str = "") -> str:
    """The numbers of `statistics` as lines to read; `config` is the one whose settings they are by, "" for LVIS's."""

    def line(values):
        return ", ".join(f"{key} % {value:g}" for key, value in values.items())

    repeat, groups = numbers["repeat_factors"], numbers["groups"].items()
    lines = [
        f"{name}: {counted(numbers['images'], 'image')} ({numbers['images_that_train']:,} train), "
        f"{counted(numbers['annotations'], 'annotation')}, {counted(numbers['classes'], 'class')} "
        f"({numbers['classes_without_annotations']} without annotations)",
        *(
            f"  {letter}: {counted(own['classes'], 'class')}, {counted(own['annotations'], 'annotation')}"
            for letter, own in groups
        ),
        f"repeat factors, t = {repeat['threshold']:g}: {counted(repeat['classes_above_1'], 'class')} and "
        f"{counted(repeat['images_above_1'], 'image')} above 1, largest {repeat['largest']:.2f}; an epoch has "
        f"{counted(repeat['epoch_ceil'], 'image')} (ceil), {repeat['epoch_stochastic']:,.0f} on average (stochastic)",
        f"ground truths per image, percentiles: {line(numbers['per_image'])}; "
        f"{counted(numbers['more_than_max_instances'], 'image has', 'images have')} more than data.max_instances",
    ]
    if numbers["sizes"]:
        lines.append(f"short side, percentiles: {line(numbers['sizes']['short'])}")
        lines.append(f"long side, percentiles: {line(numbers['sizes']['long'])}")
    larger = numbers["larger_than_canvas"]
    are = noun(larger, "is", "are")
    by, chosen = numbers["settings"], f"of {config}" if config else "for LVIS (--config NAME_OR_FILE takes others)"
    lines.append(
        f"with the settings {chosen}: short side {by['short_side']}, long one at most {by['max_side']}; "
        "padded to height x width"
    )
    lines.append(
        f"{counted(larger, 'image')} {are} larger than data.canvas={by['canvas']} and {are} fitted to it; "
        f"{numbers['lose_resolution']:,} of them {noun(numbers['lose_resolution'], 'loses', 'lose')} resolution"
    )
    lines += [
        f"  padded to {shape}: {100 * part['images']:.1f} % of the images, {100 * part['wasted']:.1f} % padding"
        for shape, part in numbers["buckets"].items()
    ]
    return "\n".join([*lines, f"padding in all: {100 * numbers['wasted']:.1f} %"])


def draw(found: Scan, path: Path) -> None:
    """Zipf plot, ground truths per image, and image sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (zipf, truths, sizes) = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    instances = np.bincount(found.label, minlength=len(found.categories))
    order = np.argsort(-instances, kind="stable")
    letters = np.array(found.categories.frequency)[order]
    for letter, colour in zip("fcr", ("#2a6", "#e90", "#c33"), strict=True):
        rank = np.flatnonzero(letters == letter)
        zipf.plot(rank + 1, np.maximum(instances[order][rank], 0.7), ".", ms=4, color=colour, label=GROUPS[letter])
    zipf.set(xscale="log", yscale="log", xlabel="class, by annotations", ylabel="annotations", title="Zipf plot")
    zipf.legend()
    truths.hist(np.diff(found.start), bins=60, color="#357")
    truths.set(yscale="log", xlabel="ground truths", ylabel="images", title="Ground truths per image")
    hw = np.array([(image.height, image.width) for image in found.images]).reshape(-1, 2)
    sizes.plot(hw[:, 1], hw[:, 0], ".", ms=3, alpha=0.3, color="#357")
    sizes.set(xlabel="width, px", ylabel="height, px", title="Images", aspect="equal")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="c2am_jax.data.stats", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("annotations", metavar="A.json")
    parser.add_argument("--out", metavar="DIR", help="where to write stats.json and stats.png")
    parser.add_argument("--config", metavar="NAME_OR_FILE", default="", help="whose data settings; default: LVIS's")
    parser.add_argument("--threshold", type=float, help="of repeat factors; default: data.repeat_threshold")
    options = parser.parse_args(arguments)
    if options.out:
        check_output("--out", options.out, folder=True)
    settings = DataSettings()
    if options.config:
        from c2am_jax.config import load_experiment  # which imports JAX

        settings = load_experiment(options.config).data
    threshold = settings.repeat_threshold if options.threshold is None else options.threshold
    found = scan(options.annotations)
    numbers = statistics(found, settings, threshold)
    print(text(Path(options.annotations).name, numbers, options.config))
    if options.out:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stats.json").write_text(json.dumps(numbers, indent=1))
        draw(found, folder / "stats.png")
        print(f"{folder / 'stats.json'}, {folder / 'stats.png'}")
    return 0
