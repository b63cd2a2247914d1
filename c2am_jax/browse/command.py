"""Annotations drawn on their pictures: one HTML page, the worst suspects first. It opens without a network.

    python -m c2am_jax.data.browse A.json --images DIR --out page.html [--most N]
                                   [--augmented --config NAME_OR_FILE [--override KEY=VALUE ...]]

The json is in the LVIS or COCO layout. Nothing is changed. --augmented adds each picture as training sees it.
Exit status: 0, also with suspects; or 2 with one line if there is nothing to show.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from c2am_jax.browse.page import BOXES_ONLY, TITLES, Shown, page
from c2am_jax.browse.paint import Drawing, drawing_of
from c2am_jax.browse.survey import Survey, chosen, survey
from c2am_jax.data.jpeg import ImageFault
from c2am_jax.errors import UserError, guarded
from c2am_jax.files import write_output
from c2am_jax.storage import check_output
from c2am_jax.wording import counted

if TYPE_CHECKING:
    from c2am_jax.experiment import Experiment

MOST = 60
BYTES = 16_000_000  # of all drawings together, as they stand in the page


def browse(
    annotations: str,
    images: str,
    out: str,
    *,
    most: int = MOST,
    augmented: bool = False,
    config: str | None = None,
    override: Sequence[str] = (),
) -> None:
    """Write the page and print what looks wrong.

    Args:
      annotations: json of the LVIS or COCO layout.
      images: folder of its pictures.
      out: the page.
      most: pictures in it.
      augmented: show them as training sees them too.
      config: name or file of the experiment of that training.
      override: KEY=VALUE changes of it.

    Raises:
      UserError: no such json or folder, or a config that is wrong.
    """
    experiment = _experiment(augmented, config, override)
    found = survey(annotations, Path(images))
    label_of = [set() for _ in found.scan.images]
    for image, label in zip(found.truths.image.tolist(), found.truths.label.tolist(), strict=True):
        label_of[image].add(label)
    suspects, ordinary = chosen(found.found, label_of, most)
    trained: dict[int, Drawing] = {}
    if experiment:
        from c2am_jax.browse.augmented import augmented_drawings

        trained = augmented_drawings(found, sorted([*suspects, *ordinary]), experiment.data)
    shown, spent = [], 0
    for place in [*suspects, *ordinary]:
        one = _shown(found, place, trained if experiment else None)
        spent += sum(len(drawing.source) for drawing in (one.drawing, one.trained) if drawing)
        if spent > BYTES:
            break
        shown.append(one)
    name = experiment.name if experiment else ""
    html = page(found, shown[: len(suspects)], shown[len(suspects) :], augmented=name)
    write_output(out, html)
    for line in _lines(found):
        print(line)
    drawn = f"{len(shown)} of {counted(len(found.scan.images), 'picture')}"
    print(f"{out}: {drawn}, {len(html.encode()) / 1e6:.1f} MB; open it in a browser")


def _experiment(augmented: bool, config: str | None, override: Sequence[str]) -> "Experiment | None":
    if not augmented:
        if config or override:
            raise UserError("--config and --override say how training sees pictures: add --augmented")
        return None
    if not config:
        raise UserError("--augmented needs --config NAME_OR_FILE, the experiment whose training is shown")
    from c2am_jax.config import load_experiment, parse_overrides, with_overrides  # which import JAX

    return with_overrides(load_experiment(config), parse_overrides(override))


def _shown(found: Survey, place: int, trained: dict[int, Drawing] | None) -> Shown:
    picture = found.picture(place)
    drawing = None
    if picture.drawable:
        try:
            drawing = drawing_of(picture, found.scan.categories.names)
        except (ImageFault, OSError) as error:
            print(f"not drawn: {picture.path}: {error}", file=sys.stderr)
    if trained is None:
        return Shown(picture, drawing)
    return Shown(
        picture, drawing, trained.get(picture.entry.id), "This picture does not train: no usable file or object."
    )


def _lines(found: Survey) -> list[str]:
    """What to print: contents, then each kind of suspect."""
    objects = len(found.truths.id) - found.crowds
    lines = [
        f"{found.scan.name}: {counted(len(found.scan.images), 'picture')}, {counted(objects, 'object')} of "
        f"{counted(len(found.scan.categories), 'class')} ({found.scan.layout} layout)"
    ]
    for reason, count in found.scan.skipped.counts.items():
        lines.append(f"left out: {reason}: {count:,}, for example {found.scan.skipped.entries[reason][0]}")
    lines += [f"suspect: {line}" for line in found.scan.name_faults]
    if found.boxes_only:
        lines.append(f"suspect: {BOXES_ONLY[0].lower()}{BOXES_ONLY[1:]}")
    for key, (number, pictures) in found.counts().items():
        kind = TITLES[key]
        where = "" if kind.counts == "picture" else f" (in {counted(pictures, 'picture')})"
        lines.append(f"suspect: {kind.title}: {number:,}{where}")
    return lines if len(lines) > 1 else [*lines, "nothing looks wrong"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m c2am_jax.data.browse", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("annotations", metavar="A.json", help="json in the LVIS or COCO layout")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of its pictures")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"pictures in the page; default {MOST}")
    parser.add_argument("--augmented", action="store_true", help="show each picture as training sees it, too")
    parser.add_argument("--config", metavar="NAME_OR_FILE", help="the experiment of that training")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="of the config")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.most < 1:
        raise UserError(f"--most {options.most} must be at least 1")
    if not Path(options.images).is_dir():
        raise UserError(f"--images {options.images}: no such folder")
    check_output("--out", options.out)
    if Path(options.out).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {options.out}: the page is a file that ends in .html")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    _check(options)
    browse(**vars(options))
    return 0
