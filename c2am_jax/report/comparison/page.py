"""The page about two evaluations, from their results to the file."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from c2am_jax.environment import made_with
from c2am_jax.errors import UserError
from c2am_jax.evaluation.tables import difference_table
from c2am_jax.report.collect import best_threshold
from c2am_jax.report.comparison import sections
from c2am_jax.report.comparison.images import Trios, make_trios
from c2am_jax.report.comparison.numbers import compared, settings_that_differ
from c2am_jax.report.comparison.results import Results, check_same
from c2am_jax.report.gallery import ImageReader
from c2am_jax.report.render import asset, framed, table_scripts, write
from c2am_jax.wording import counted


def write_comparison(
    path: Path,
    one: Results,
    other: Results,
    annotations: Path,
    *,
    data: str = "",
    images: Collection[int] | None = None,
    pictures: Callable[[set[int]], ImageReader] | None = None,
    show: Callable[[str], None] = print,
) -> None:
    """Score two results again and write the page; `show` gets a table.

    Args:
      path: of the page.
      one, other: A and B, which `check_same` has not refused.
      annotations: what both are scored against.
      data: what a reader calls the annotations; default the file's name.
      images: ids of the images that count; None: all.
      pictures: reader of images, as for `make_gallery`; None: no pictures.
      show: gets texts.

    Raises:
      UserError: results that cannot be scored.
    """
    kinds = [kind for kind in one.files if kind in other.files]
    names = _names(one, other)
    scored = [results.scored(kinds, annotations, images, one.table) for results in (one, other)]
    found = compared(scored)
    show("\n".join(f"{letter}: {name} ({r.place})" for letter, name, r in zip("AB", names, (one, other), strict=True)))
    show(difference_table({kind: found["metrics"][kind] for kind in kinds}))
    thresholds = [best_threshold(of[kinds[0]])["threshold"] for of in scored]
    evidence = [of[kinds[0]].evidence for of in scored]
    masks = [of[kinds[-1]].evidence for of in scored]
    assert evidence[0] and evidence[1] and masks[0] and masks[1]
    categories = scored[0][kinds[0]].categories
    trios: Trios | None = None
    if pictures:
        problems = [found.problem for found in masks if found]
        trios = make_trios([e for e in evidence if e], problems, categories, thresholds, pictures)
    keys = sections.columns(kinds)
    embedded: dict[str, Any] = {key: found[key] for key in ("metrics", "groups")}
    embedded["table"] = {"columns": keys, "rows": [[row[c["key"]] for c in keys] for row in found["categories"]]}
    page = framed(
        " against ".join(names),
        f"{counted(len(evidence[0].image_ids), 'image')} of {data or annotations.name}, "
        f"{counted(len(categories), 'category')}",
        [
            sections.summary(found, names),
            sections.categories(found),
            sections.images(trios, names, thresholds),
            sections.setting(
                [one.place, other.place], settings_that_differ(one.settings, other.settings), made_with(devices=False)
            ),
        ],
        scripts=table_scripts(embedded),
        style=asset("report.comparison", "style.css"),
    )
    write(path, page)


def _names(one: Results, other: Results) -> tuple[str, str]:
    """What A and B are called: their own names, or their places where these do not tell them apart."""
    return (one.name, other.name) if one.name != other.name else (one.place, other.place)


def checked(one: Results, other: Results) -> None:
    """`check_same`, and that they are two.

    Raises:
      UserError: they are the same files, or cannot be compared.
    """
    if [file.resolve() for file in one.files.values()] == [file.resolve() for file in other.files.values()]:
        raise UserError(f"--against {other.place}: these are the results of the first run itself; name another run")
    check_same(one, other)
