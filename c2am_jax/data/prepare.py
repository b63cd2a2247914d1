"""Annotation json and JPEGs -> records. What is skipped is counted, listed, and explained in docs/data.md.

python -m c2am_jax.data.prepare lvis_v1 --out DIR   (lvis_v05, coco; files in DIR/lvis_v1, or --annotations, --images)
python -m c2am_jax.data.prepare --annotations A.json --images DIR --name NAME --out DIR   (LVIS or COCO layout)
"""

import argparse
import shlex
import sys
from typing import Any

from c2am_jax.errors import guarded
from c2am_jax.frequency import GROUPS
from c2am_jax.storage import check_output
from c2am_jax.wording import counted


@guarded
def main(arguments: list[str] | None = None) -> int:
    """Prepare one json, or both splits of a published set; prints the reports, returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m c2am_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", choices=("lvis_v1", "lvis_v05", "coco"), help="a published set")
    parser.add_argument("--split", choices=("train", "val"), help="of the published set; default: both")
    parser.add_argument("--annotations", help="json in the LVIS or COCO layout, local or gs://")
    parser.add_argument("--images", help="folder of its pictures (searched by file_name or coco_url), local or gs://")
    parser.add_argument("--name", help="data.name with _train, _val or _test, for example birds_train")
    parser.add_argument("--out", required=True, help="folder of prepared data sets, config.data.dir")
    parser.add_argument(
        "--training", default="", help="json of the training split, for groups that --annotations lacks"
    )
    parser.add_argument(
        "--replace", action="store_true", help="prepare NAME again though it was prepared from another json"
    )
    parser.add_argument("--workers", type=int, help="processes; default: one per core")
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="write the shards on the workers of an Apache Beam pipeline with these options, for example "
        '"--runner=DataflowRunner --project=P"; --images, --out and a local json must be folders that all workers see',
    )
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error("--workers must be at least 1")
    check_output("--out", options.out, folder=True)
    try:
        for annotations, images, name in _sources(parser, options):
            _prepare(annotations, images, name, options)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume, finished shards are kept", file=sys.stderr)
        return 130
    return 0


def _sources(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """(annotations, images, name) of what is to be prepared; all must be there before the first begins."""
    if not options.dataset:
        for key in ("annotations", "images", "name"):
            if not getattr(options, key):
                parser.error(f"either a published set or --{key} is needed")
        return [(options.annotations, options.images, options.name)]
    if options.name or (options.annotations and not options.split):
        parser.error("a published set has its own name, and --annotations needs --split")
    from c2am_jax.data import datasets
    from c2am_jax.data.settings import DataSettings

    named = options.annotations or ""
    data = DataSettings(options.dataset, options.out, named, options.images or "", val_annotations=named)
    found = []
    for split in [options.split] if options.split else ["train", "val"]:
        annotations, images = datasets.sources(data, split)
        datasets.check_sources(options.dataset, annotations, images, split)
        found.append((str(annotations), str(images), f"{options.dataset}_{split}"))
    return found


def _prepare(annotations: str, images: str, name: str, options: argparse.Namespace) -> None:
    from c2am_jax.data import builder, prepared  # TFDS takes a second to import: not for --help

    beam = None if options.beam is None else shlex.split(options.beam)
    report = builder.prepare(
        annotations,
        images,
        name,
        options.out,
        replace_other=options.replace,
        trains=not name.endswith(("_val", "_test")),
        workers=options.workers,
        training=options.training,
        beam=beam,
    )
    for line in _lines(name, report, builder.faults(report)):
        print(line)
    print(f"written to {prepared.folder_of(name, options.out)} (report.json lists what was skipped)")


def _lines(name: str, report: dict[str, Any], faults: list[str]) -> list[str]:
    images, instances = counted(report["images"], "image"), counted(report["instances"], "instance")
    lines = [f"{name}: {images}, {instances} ({report['layout']} layout)"]
    if report["images_without_annotations"]:
        without = counted(report["images_without_annotations"], "image")
        lines.append(f"without annotations, for evaluation only: {without}")
    groups, of_group = report["categories"], report["instances_of_group"]
    lines.append("categories: " + ", ".join(f"{groups[group]:,} {word}" for group, word in GROUPS.items()))
    lines.append("instances: " + ", ".join(f"{of_group[group]:,} {word}" for group, word in GROUPS.items()))
    lines += faults
    if report.get("nothing_to_score"):
        lines.append(report["nothing_to_score"])
    lines += [f"added for evaluation: {what}" for what in report["added_for_evaluation"]]
    if report["unlike_published"]:
        lines += [f"NOT the published {name}: {what}" for what in report["unlike_published"]]
    elif report["published"]:
        lines.append(f"the file's counts are those of the published {name}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
