"""The sections of the page: a title and html for each, from the numbers of `collect`."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from c2am_jax.evaluation.caps import LVIS_SHARE
from c2am_jax.evaluation.tables import AP_COLUMNS
from c2am_jax.frequency import COMMON_MOST, GROUPS, RARE_MOST
from c2am_jax.report import charts
from c2am_jax.report.gallery import Gallery
from c2am_jax.report.html import facts, group, heat, legend, number, percent, scroll, table, tiles
from c2am_jax.visualization.names import readable
from c2am_jax.wording import counted, noun

KIND_TEXTS = {
    "best": ("Best", "Right category, and the outline closest to the annotated one."),
    "worst": ("Worst", "Right category on the object, but the outline farthest from the annotated one."),
    "missed": (
        "Missed",
        "The largest annotated objects that no detection of their category touches, and what lies there at any score.",
    ),
    "false": ("False", "The highest scores that match no annotated object of their category."),
}
NAMES = {"bbox": "box", "segm": "mask", "boundary": "boundary"}


def columns(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """Columns of the category table: key in a category's row, heading, kind of value."""
    found = [
        {"key": "name", "label": "category", "kind": "text"},
        {"key": "frequency", "label": "group", "kind": "group"},
        {"key": "image_count", "label": "images", "kind": "count"},
        {"key": "instance_count", "label": "instances", "kind": "count"},
        {"key": "ground_truths", "label": "objects", "kind": "count"},
    ]
    for kind in data["metrics"]:
        for score in ("AP", "AP50", "AP75", "AR"):
            found.append({"key": f"{kind}_{score}", "label": f"{NAMES[kind]} {score}", "kind": "percent"})
    for stage in data.get("norms", {}):
        found.append({"key": f"norm_{stage}", "label": f"norm {stage}".strip(), "kind": "number"})
    return found


def summary(data: Mapping[str, Any]) -> tuple[str, str]:
    """AP by the protocol's columns, and by group."""
    metrics = data["metrics"]
    parts = []
    for kind, values in metrics.items():
        parts.append(tiles((f"{NAMES[kind]} {c}", percent(values[c])) for c in ("AP", "APr", "APc", "APf")))
    limit = next(name for name in next(iter(metrics.values())) if name.startswith("AR@"))
    shown = (*(c for c in AP_COLUMNS if not c.startswith("AR")), limit)
    rows = [[NAMES[kind], *(percent(values[c]) for c in shown)] for kind, values in metrics.items()]
    parts += [
        "<p>Average precision in per cent by the LVIS protocol; s, m and l are sizes of objects, r, c and f rare (at "
        f"most {RARE_MOST} training images), common (at most {COMMON_MOST}) and frequent categories. A dash: nothing "
        "to count.</p>",
        table("All metrics, per cent", ["overlap of", *shown], rows),
        "<h3>By frequency group</h3>",
    ]
    parts.append("<p>Means over the categories of each group that are annotated, in per cent.</p>")
    header = ["group", "categories", "annotated", "objects", "AP", "AP50", "AP75", "AR", "AP 0"]
    for kind in metrics:
        body = []
        for row in data["groups"]:
            scores = [percent(row[kind][s]) for s in ("AP", "AP50", "AP75", "AR")]
            counts = [f"{row[k]:,}" for k in ("categories", "annotated", "objects")]
            body.append([group(row["group"]), *counts, *scores, f"{row[kind]['zero']:,}"])
        parts.append(table(f"{NAMES[kind].capitalize()} AP by group, per cent", header, body))
    parts.append('<p class="soft">“AP 0” counts the annotated categories of which nothing was found.</p>')
    return "AP by group", "".join(parts)


def categories(data: Mapping[str, Any]) -> tuple[str, str]:
    """A chart, and the table that the page's script fills."""
    ordered = sorted(data["categories"], key=lambda c: -c["image_count"])
    parts = []
    for kind in data["metrics"]:
        values = [None if c[f"{kind}_AP"] is None else 100 * c[f"{kind}_AP"] for c in ordered]
        title = f"{NAMES[kind]} AP of each category, most training images first"
        chart = charts.by_frequency(
            values, [c["frequency"] for c in ordered], title=title, y_name=f"{NAMES[kind]} AP", top=100
        )
        parts.append(scroll(chart, title))
    return "Categories", (
        legend(GROUPS.values())
        + f'<div class="pair">{"".join(parts)}</div>'
        + category_table(
            columns(data), "Training images and instances, annotated objects of this evaluation, scores in per cent."
        )
    )


def category_table(shown: Sequence[Mapping[str, str]], text: str) -> str:
    """The place of the table that ``table.js`` fills, sorts and searches, and its controls.

    Args:
      shown: its columns, as those of `columns`.
      text: what stands above it.
    """
    heads = "".join(
        f'<th scope="col"{" class=text" if c["kind"] in ("text", "group") else ""}>'
        f'<button type="button">{escape(c["label"])}</button></th>'
        for c in shown
    )
    options = "".join(f'<option value="{letter}">{name}</option>' for letter, name in GROUPS.items())
    rows = f'<table id="category-table" aria-label="Categories"><thead><tr>{heads}</tr></thead><tbody></tbody></table>'
    return (
        '<div class="controls"><label for="search">Search a name<input type="search" id="search" autocomplete="off">'
        f'</label><label for="group">Group<select id="group"><option value="">all</option>{options}</select></label>'
        '<span id="shown" role="status"></span></div>'
        f'<p class="soft">{escape(text)}</p>'
        + scroll(rows, "Categories, sortable by their headings", kind="tall")
        + "<noscript><p>The table needs JavaScript; its numbers stand in the page's source.</p></noscript>"
    )


def calibration(data: Mapping[str, Any]) -> tuple[str, str]:
    """Precision over score, and the calibration errors."""
    parts = [
        "<p>If scores were probabilities, of the detections with score 0.7 seven in ten would be right (IoU 0.5) and "
        "the curves would follow the dashed line. Below it scores promise too much. The expected calibration error is "
        "the mean distance, weighted by detections.</p>",
        legend(("all", *GROUPS.values())),
        '<div class="pair">',
    ]
    for kind, found in data["calibration"].items():
        curves = {g: [(b["score"], b["precision"]) for b in v["bins"] if b["count"]] for g, v in found.items()}
        title = f"Precision of {NAMES[kind]} detections by score"
        parts.append(scroll(charts.reliability(curves, title=title), title))
    parts.append("</div>")
    for kind, found in data["calibration"].items():
        rows = [[group(g), f"{v['count']:,}", number(v["error"])] for g, v in found.items()]
        header = ["group", "detections", "expected calibration error"]
        parts.append(f"<h3>{NAMES[kind].capitalize()} detections</h3>")
        parts.append(table(f"Calibration of {NAMES[kind]} scores", header, rows))
        rows = [
            [f"{b['low']:.1f} to {b['high']:.1f}", f"{b['count']:,}", number(b["score"]), number(b["precision"])]
            for b in found["all"]["bins"]
        ]
        header = ["score", "detections", "mean score", "precision"]
        parts.append(table(f"Ranges of {NAMES[kind]} scores, all categories", header, rows))
        best = data["thresholds"][kind]
        parts.append(
            f"<p>The score threshold with the best F1 is {best['threshold']:.2f}: precision "
            f"{percent(best['precision'])} %, recall {percent(best['recall'])} %.</p>"
        )
    return "Calibration", "".join(parts)


def caps(data: Mapping[str, Any]) -> tuple[str, str]:
    """AP by group when fewer detections of each image count."""
    parts = [
        "<p>AP when only the best <i>k</i> detections of each image are scored, by <i>k</i> over the number of "
        f"categories. LVIS scores 300 for 1203 categories, {LVIS_SHARE:g} of them (the dashed line). Where <i>k</i> is "
        "small, categories compete by their scores: a curve that falls early belongs to a group whose scores are too "
        "low beside those of others.</p>",
    ]
    letters = {"all": "AP", **{name: f"AP{letter}" for letter, name in GROUPS.items()}}
    curved = {kind: rows for kind, rows in data["caps"].items() if len(rows) > 1}  # one cap is no curve
    parts += [legend(("all", *GROUPS.values())), '<div class="pair">'] if curved else []
    for kind, rows in curved.items():
        curves = {
            name: [(row["share"], 100 * row[key]) for row in rows if row[key] is not None]
            for name, key in letters.items()
        }
        title = f"{NAMES[kind]} AP by detections of each image over categories"
        parts.append(scroll(charts.by_share(curves, mark=LVIS_SHARE, title=title, y_name=f"{NAMES[kind]} AP"), title))
    parts += ["</div>"] if curved else []
    for kind, rows in data["caps"].items():
        body = [
            [f"{row['cap']}", number(row["share"], digits=2), *(percent(row[key]) for key in letters.values())]
            for row in rows
        ]
        parts.append(table(f"{NAMES[kind]} AP under caps, per cent", ["k", "k / categories", *letters], body))
    return "Detections per image", "".join(parts)


def norms(data: Mapping[str, Any]) -> tuple[str, str]:
    """The classifier's weight norms over categories sorted by frequency."""
    ordered = sorted(data["categories"], key=lambda c: -c["image_count"])
    parts = [
        "<p>The length of each category's weight vector in the box classifier (the paper's Figure 1). An inner product "
        "favours long vectors; a loss that scores by angle does not.</p>",
        legend(GROUPS.values()),
    ]
    for stage, found in data["norms"].items():
        title = f"Weight norms of the categories {stage}".strip()
        values = [c[f"norm_{stage}"] for c in ordered]
        letters = [c["frequency"] for c in ordered]
        chart = charts.by_frequency(values, letters, title=title, y_name="weight norm")
        quantiles = list(next(iter(found["groups"].values()), {}))
        rows = [[group(g), *(number(v[q]) for q in quantiles)] for g, v in found["groups"].items()]
        rows.append(["background", *[""] * (len(quantiles) // 2), number(found["background"])])
        rows[-1] += [""] * (len(quantiles) + 1 - len(rows[-1]))
        header = ["group", *(f"{q} %" for q in quantiles)]
        parts.append(scroll(chart, title))
        parts.append(table(f"{title}: quantiles of each group", header, rows))
    return "Weight norms", "".join(parts)


def margins(data: Mapping[str, Any]) -> tuple[str, str]:
    """C2AM's margins between the groups."""
    parts = [
        "<p>C2AM moves each competitor <i>j</i> of a sample of category <i>i</i> away by the angle m<sub>ij</sub> = "
        "max(0, α/π · ln(‖W<sub>i</sub>‖ / ‖W<sub>j</sub>‖)): margins are positive where the sample's own weight "
        "vector is the longer one. Rows are the sample's group, columns the competitor's.</p>"
    ]
    for stage, found in data["margins"].items():
        top = max((v for row in found["mean"] for v in row if v is not None), default=0) or 1
        shares = [[None if v is None else v / top for v in row] for row in found["mean"]]
        texts = [[number(v) for v in row] for row in found["mean"]]
        parts.append(f"<h3>Stage {escape(stage)}</h3>" if stage else "")
        parts.append('<div class="pair">')
        parts.append(heat("Mean margin, radians", found["groups"], shares, texts))
        texts = [[percent(v) for v in row] for row in found["active"]]
        parts.append(heat("Pairs with a margin, per cent", found["groups"], found["active"], texts))
        parts.append(f"</div><p>The largest margin is {number(found['max'])} radians.</p>")
    return "Margins", "".join(parts)


def confusion(data: Mapping[str, Any]) -> tuple[str, str]:
    """What is taken for what."""
    found = data["confusion"]
    total = max(found["objects"], 1)
    parts = [
        "<p>Each annotated object counts as what the best-scored detection on it (box IoU 0.5 or more, at any score) "
        "says, detections that are right about another object left out. LVIS does not annotate every category in every "
        "image, so an object may really bear both names.</p>",
        f"<p>Of {counted(found['objects'], 'object')} {percent(found['right'] / total)} % are taken for what they are, "
        f"{percent(found['other'] / total)} % for something else, and on {percent(found['none'] / total)} % lies no "
        "detection.</p>",
    ]
    if not found["pairs"]:
        return "Look-alikes", "".join(parts) + "<p>No object is taken for something else.</p>"
    matrix = found["matrix"]
    names = [readable(name) for name in matrix["names"]]
    shares = [[n / max(m, 1) for n in row] for row, m in zip(matrix["counts"], matrix["objects"], strict=True)]
    texts = [[f"{n:,}" if n else "" for n in row] for row in matrix["counts"]]
    parts.append(heat("Rows: annotated as; columns: taken for; objects", names, shares, texts))
    header = ["annotated as", "taken for", "objects", "share of the category, per cent"]
    rows = []
    for pair in found["pairs"]:
        row = [
            readable(pair["truth"]),
            readable(pair["taken_for"]),
            f"{pair['count']:,}",
            percent(pair["count"] / max(pair["objects"], 1)),
        ]
        rows.append(row + ([number(pair["cosine"])] if "cosine" in pair else []))
    if "cosine" in found["pairs"][0]:
        header.append("cosine of the weights")
    title = f"The {len(rows)} most frequent {noun(len(rows), 'confusion')}"
    parts.append(f"<details><summary>{title}</summary>{table(title, header, rows)}</details>")
    return "Look-alikes", "".join(parts)


def unreadable(count: int) -> str:
    """A sentence about pictures that could not be read."""
    left_out = counted(count, "picture is left out, because its image", "pictures are left out, because their images")
    return f"<p>{left_out} could not be read.</p>"


def gallery(found: Gallery | None, threshold: float) -> tuple[str, str]:
    """Pictures, or one sentence why there are none."""
    if found is None:
        return "Gallery", "<p>No pictures, because the evaluation was given no folder of images (--images DIR).</p>"
    parts = [
        "<p>Left of each picture what is annotated, right what was detected, each with its mask if there is one; "
        f"detections of score {threshold:.2f} or more. Rare, common and frequent categories take turns.</p>"
    ]
    if found.unreadable:
        parts.append(unreadable(found.unreadable))
    for kind, (title, text) in KIND_TEXTS.items():
        parts.append(f"<h3>{title}</h3><p>{text}</p>")
        figures = []
        for p in found.pictures[kind]:
            alt = f"{title}: {p.category}. Left annotated, right detected: {p.caption}."
            figures.append(
                f'<li><figure><img src="{p.source}" width="{p.size[0]}" height="{p.size[1]}" alt="{escape(alt)}" '
                f'loading="lazy" decoding="async"><figcaption><b>{escape(readable(p.category))}</b> '
                f"{group(GROUPS[p.group])}<br>{escape(p.caption)}</figcaption></figure></li>"
            )
        parts.append(f'<ul class="gallery">{"".join(figures)}</ul>' if figures else "<p>None.</p>")
    return "Gallery", "".join(parts)


def setting(configuration: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, str]:
    """What was run, and on what."""
    text = escape(json.dumps(configuration, indent=2, default=str))
    return "Configuration and environment", (
        scroll(facts(environment), "Environment")
        + f'<details><summary>Configuration</summary><pre tabindex="0" role="group" aria-label="Configuration">{text}'
        "</pre></details>"
    )


def all_sections(
    data: Mapping[str, Any],
    pictures: Gallery | None,
    configuration: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Sequence[tuple[str, str, str]]:
    """Identifier, title and html of every section that there is something for, in order."""
    threshold = next(iter(data["thresholds"].values()))["threshold"]
    found = [("summary", *summary(data)), ("categories", *categories(data)), ("calibration", *calibration(data))]
    if "caps" in data:
        found.append(("caps", *caps(data)))
    if "norms" in data:
        found.append(("norms", *norms(data)))
    if "margins" in data:
        found.append(("margins", *margins(data)))
    found.append(("confusion", *confusion(data)))
    found.append(("gallery", *gallery(pictures, threshold)))
    found.append(("setting", *setting(configuration, environment)))
    return found
