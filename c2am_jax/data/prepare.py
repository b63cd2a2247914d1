"""`python -m c2am_jax.data.prepare --annotations A.json --images DIR --name NAME --out DIR`: LVIS json -> records."""

import argparse
import sys

from c2am_jax.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Prepare one split; prints the report, returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m c2am_jax.data.prepare", description=__doc__)
    parser.add_argument("--annotations", required=True, help="json in the LVIS layout")
    parser.add_argument("--images", required=True, help="folder of its JPEGs (searched by file_name or coco_url)")
    parser.add_argument("--name", required=True, help="data.name with _train or _val, for example lvis_v1_train")
    parser.add_argument("--out", required=True, help="folder of prepared data sets, config.data.dir")
    options = parser.parse_args(arguments)
    from c2am_jax.data import builder  # TensorFlow takes seconds to import: not for --help

    try:
        report = builder.prepare(options.annotations, options.images, options.name, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.name}: {report['images']} images, {report['instances']} instances")
    if report["images_without_annotations"]:
        print(f"without annotations, for evaluation only: {report['images_without_annotations']} images")
    groups = report["categories"]
    print(f"categories: {groups['r']} rare, {groups['c']} common, {groups['f']} frequent")
    for reason, count in report["skipped"].items():
        print(f"skipped, {reason}: {count}")
    print(f"written to {builder.folder_of(options.name, options.out)} (report.json lists what was skipped)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
