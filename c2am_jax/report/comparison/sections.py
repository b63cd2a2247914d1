"""The sections of the page about two evaluations: a title and html for each."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from c2am_jax.evaluation.tables import AP_COLUMNS
from c2am_jax.frequency import GROUPS
from c2am_jax.report import charts
from c2am_jax.report.comparison.images import Trio, Trios
from c2am_jax.report.comparison.numbers import SCORES, moved
from c2am_jax.report.html import Markup, change, facts, group, legend, percent, scroll, table, tiles
from c2am_jax.report.sections import NAMES, category_table, unreadable
from c2am_jax.visualization.names import readable

MOVED = 15  # categories listed in each direction
SHOWN = 6  # names in the caption of an image
LESS = "A\u00a0−\u00a0B"  # in one line
Section = tuple[str, str, str]


def sides(names: Sequence[str]) -> str:
    """What A and B are."""
    marked = zip("AB", names, strict=True)
    return '<ul class="legend">' + "".join(f"<li>{side(s)} {escape(name)}</li>" for s, name in marked) + "</ul>"


def side(letter: str) -> Markup:
    """The mark of A or of B."""
    return Markup(f'<b class="side {letter.lower()}">{letter}</b>')


def columns(kinds: Sequence[str]) -> list[dict[str, str]]:
    """Columns of the table of all categories, as those of `report.sections.columns`."""
    found = [
        {"key": "name", "label": "category", "kind": "text"},
        {"key": "frequency", "label": "group", "kind": "group"},
        {"key": "image_count", "label": "images", "kind": "count"},
        {"key": "ground_truths", "label": "objects", "kind": "count"},
    ]
    for kind in kinds:
        found += [
            {"key": f"{kind}_a", "label": f"{NAMES[kind]} AP, A", "kind": "percent"},
            {"key": f"{kind}_b", "label": "B", "kind": "percent"},
            {"key": f"{kind}_difference", "label": LESS, "kind": "change"},
        ]
    return found


def summary(data: Mapping[str, Any], names: Sequence[str]) -> Section:
    """AP of both, all metrics and by group."""
    parts = [sides(names)]
    for kind, metrics in data["metrics"].items():
        shown = ((f"{NAMES[kind]} {c}", metrics[c]) for c in ("AP", "APr", "APc", "APf"))
        parts.append(tiles((name, _pair(values)) for name, values in shown))
    parts.append(
        "<p>Average precision of A and B in per cent by the LVIS protocol, and A minus B. Above 0, "
        "A is better. Two trainings of one configuration differ too: compare runs of several seeds before you believe "
        "a small difference.</p>"
    )
    limit = next(name for name in next(iter(data["metrics"].values())) if name.startswith("AR@"))
    columns = (*(c for c in AP_COLUMNS if not c.startswith("AR")), limit)
    rows = []
    for kind, metrics in data["metrics"].items():
        for place, name in enumerate(("A", "B")):
            rows.append([f"{NAMES[kind]}, {name}", *(percent(metrics[c][place]) for c in columns)])
        rows.append([f"{NAMES[kind]}, {LESS}", *(change(metrics[c][2]) for c in columns)])
    parts += [table("All metrics, per cent", ["overlap of", *columns], rows), "<h3>By frequency group</h3>"]
    parts.append('<div class="pair">')
    for kind, rows in data["groups"].items():
        title = f"{NAMES[kind]} AP by group"
        bars = {row["group"]: row["AP"][:2] for row in rows}
        parts.append(scroll(charts.side_by_side(bars, title=title, y_name=f"{NAMES[kind]} AP"), title))
    parts.append("</div>")
    for kind, rows in data["groups"].items():
        header = ["group", "categories", "objects"]
        for score in SCORES:
            header += [f"{score}, A", "B", LESS]
        header += ["A better", "B better"]
        body = []
        for row in rows:
            cells = [f"{row['annotated']:,}", f"{row['objects']:,}"]
            for score in SCORES:
                a, b, difference = row[score]
                cells += [percent(a), percent(b), change(difference)]
            body.append([group(row["group"]), *cells, f"{row['better']:,}", f"{row['worse']:,}"])
        parts.append(
            table(f"{NAMES[kind].capitalize()} AP and AP50 of the annotated categories, per cent", header, body)
        )
    parts.append('<p class="soft">“A better” counts the categories whose AP is higher in A.</p>')
    return "summary", "AP by group", "".join(parts)


def categories(data: Mapping[str, Any]) -> Section:
    """The categories that moved most, in both directions, and all of them."""
    kinds = list(data["metrics"])
    kind = kinds[-1]
    name = NAMES[kind]
    ordered = sorted(data["categories"], key=lambda c: -c["image_count"])
    key = f"{kind}_difference"
    values = [None if c[key] is None else 100 * c[key] for c in ordered]
    title = f"Difference in {name} AP of each category, most training images first"
    chart = charts.by_frequency(values, [c["frequency"] for c in ordered], title=title, y_name=f"{name} AP, A − B")
    parts = [
        legend(GROUPS.values()),
        scroll(chart, title),
        f"<p>The categories whose {name} AP differs most. The AP of a category with few objects moves far by chance: "
        "look at how many there are.</p>",
        '<div class="pair">',
    ]
    header = ["category", "group", "images", "objects", "A", "B", LESS]
    for letter, rows in zip("AB", moved(data["categories"], kind, MOVED), strict=True):
        body = [
            [
                readable(row["name"]),
                group(GROUPS[row["frequency"]]),
                f"{row['image_count']:,}",
                f"{row['ground_truths']:,}",
                percent(row[f"{kind}_a"]),
                percent(row[f"{kind}_b"]),
                change(row[key]),
            ]
            for row in rows
        ]
        title = f"Better in {letter}, {name} AP in per cent"
        parts.append(f'<div class="moved">{table(title, header, body)}</div>' if body else f"<p>{title}: none.</p>")
    parts.append("</div><h3>All categories</h3>")
    text = "Training images, annotated objects of this evaluation, AP in per cent. A dash: no object to count."
    return "categories", "Categories", "".join(parts) + category_table(columns(kinds), text)


def images(found: Trios | None, names: Sequence[str], thresholds: Sequence[float]) -> Section:
    """Images in which A and B differ most, or one sentence why there are none."""
    title = "Pictures that differ"
    if found is None:
        return "pictures", title, "<p>No pictures: give the folder of the images (--images DIR).</p>"
    parts = [
        sides(names),
        "<p>Each picture three times: what is annotated, what A detected, what B detected. An object is found if a "
        "detection of its category lies on it (box IoU of at least 0.5). Mistakes are objects that are not found and "
        f"detections that are false. Only detections of score {thresholds[0]:.2f} or more of A and {thresholds[1]:.2f} "
        "or more of B count here: the scores with the best F1 of each.</p>",
    ]
    if found.unreadable:
        parts.append(unreadable(found.unreadable))
    for letter, trios in (("A", found.better), ("B", found.worse)):
        parts.append(f"<h3>{letter} makes fewer mistakes</h3>")
        parts.append(f'<ul class="trios">{"".join(map(_figure, trios))}</ul>' if trios else "<p>None.</p>")
    return "pictures", title, "".join(parts)


def setting(places: Sequence[str], differing: Mapping[str, tuple[Any, Any]], environment: Mapping[str, str]) -> Section:
    """Where the results are, and which settings the runs do not share."""
    parts = [scroll(facts({"A": places[0], "B": places[1]}), "Results")]
    if differing:
        rows = [[key, *map(_value, pair)] for key, pair in differing.items()]
        parts.append(f'<div class="settings">{table("Settings that differ", ["setting", "A", "B"], rows)}</div>')
    parts.append(f"<h3>Environment</h3>{scroll(facts(environment), 'Environment')}")
    return "setting", "What was compared", "".join(parts)


def _value(value: Any) -> str:
    return '""' if value == "" else str(value)


def _pair(values: Sequence[float | None]) -> Markup:
    return Markup(f'{percent(values[0])} <small class="of">{change(values[2])}</small>')


def _figure(trio: Trio) -> str:
    panels = []
    width, height = trio.size
    for name, mark, source in zip(
        ("annotated", "A", "B"), ("annotated", side("A"), side("B")), trio.sources, strict=True
    ):
        alt = f"image {trio.image_id}, {name}"
        panels.append(
            f'<div><p>{mark}{_told(trio, name)}</p><img src="{source}" width="{width}" height="{height}" '
            f'alt="{escape(alt)}" loading="lazy" decoding="async"></div>'
        )
    only = "".join(
        f"<br>Only {side(letter)} finds: {escape(_listed(names))}"
        for letter, names in zip("AB", trio.only, strict=True)
        if names
    )
    caption = f"<figcaption><b>Image {trio.image_id}</b>{only}</figcaption>"
    return f'<li><figure>{caption}<div class="trio">{"".join(panels)}</div></figure></li>'


def _told(trio: Trio, name: str) -> str:
    if name not in ("A", "B"):
        return ""
    found, objects, wrong = trio.counts["AB".index(name)]
    return f" {found} of {objects} found, {wrong} false"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(readable, names[:SHOWN])) + more
