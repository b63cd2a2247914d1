"""The page: what the json holds, what is suspect in it, and the pictures."""

import collections
import dataclasses
from collections.abc import Sequence
from html import escape

import numpy as np

from c2am_jax.browse.paint import LISTED, Drawing, numbered
from c2am_jax.browse.survey import Picture, Survey
from c2am_jax.browse.suspects import KINDS, Finding, Thing
from c2am_jax.frequency import GROUPS
from c2am_jax.report.html import facts, scroll, table, tiles
from c2am_jax.report.render import asset, framed
from c2am_jax.wording import counted

BOXES_ONLY = "No object has a mask: nothing of this json trains. Its boxes can be scored."
TITLES = {kind.key: kind for kind in KINDS}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture in the page, its drawing if it has one, and as training sees it: a drawing, or a sentence why not."""

    picture: Picture
    drawing: Drawing | None
    trained: Drawing | None = None
    note: str = ""


def page(survey: Survey, suspects: Sequence[Shown], ordinary: Sequence[Shown], *, augmented: str = "") -> str:
    """All of the html.

    Args:
      survey: of the json.
      suspects: pictures with suspects, the worst first.
      ordinary: other pictures.
      augmented: the experiment whose training the second drawings come from; "" if there are none.
    """
    names = survey.scan.categories.names
    parts = [("overview", "What is in it", _overview(survey)), ("found", "What looks wrong", _found(survey))]
    if suspects:
        parts.append(("suspects", "Suspect pictures", _suspects(survey, suspects, names)))
    if ordinary:
        title = "Other pictures" if suspects else "Pictures"
        parts.append(("ordinary", title, f"<p>{_spread(survey)}</p>" + _list(ordinary, names)))
    parts.append(("classes", "Classes", _classes(survey)))
    shown, pictures = len(suspects) + len(ordinary), counted(len(survey.scan.images), "picture")
    subtitle = f"{shown:,} of {pictures}, from {survey.folder}"
    if augmented:
        subtitle += f". Below each picture: as the training of {augmented} sees it."
    script = f"<script>\n{asset('browse', 'kinds.js')}</script>"
    return framed(survey.scan.name, subtitle, parts, scripts=script, style=asset("browse", "style.css"))


def _overview(survey: Survey) -> str:
    images = survey.scan.images
    sums = {
        "pictures": len(images),
        "objects": len(survey.truths.id) - survey.crowds,
        "classes": len(survey.scan.categories),
        "suspect pictures": len(survey.found),
    }
    per_picture = np.bincount(survey.truths.image, minlength=len(images))
    sizes = collections.Counter((entry.width, entry.height) for entry in images)
    (width, height), often = sizes.most_common(1)[0]
    large, small = max(sizes, key=np.prod), min(sizes, key=np.prod)
    said = f"{width} x {height}"
    if len(sizes) > 1:
        said = f"most often {said} ({often:,}); from {small[0]} x {small[1]} to {large[0]} x {large[1]}"
    objects = len(survey.truths.id) - survey.crowds
    rows = {
        "Layout": "LVIS" if survey.scan.layout == "lvis" else "COCO",
        "Picture sizes, width x height": said,
        "Objects in a picture": f"{np.median(per_picture):g} in the middle, {per_picture.max()} at most; "
        f"{counted(int((per_picture == 0).sum()), 'picture')} without any",
        "Masks": f"{survey.masks:,} of {counted(objects + survey.crowds, 'object')}",
    }
    if survey.crowds:
        rows["Crowd regions"] = f"{survey.crowds:,} ('iscrowd': 1); they do not train"
    sides = np.sqrt(np.maximum(np.prod(survey.truths.box[:, 2:], axis=1), 0))
    if len(sides):
        low, middle, high = np.quantile(sides, [0.1, 0.5, 0.9])
        rows["Size of boxes"] = (
            f"like squares of {middle:.0f} pixels in the middle; four of five from {low:.0f} to {high:.0f}"
        )
    return tiles((name, f"{value:,}") for name, value in sums.items()) + scroll(facts(rows), "What is in it")


def _found(survey: Survey) -> str:
    counts, left_out = survey.counts(), _left_out(survey)
    of_file = [BOXES_ONLY] if survey.boxes_only else []
    whole = "".join(f'<p class="bad">{escape(line)}</p>' for line in (*survey.scan.name_faults, *of_file))
    if not counts and not left_out:
        if whole:
            return whole
        said = "Nothing looks wrong. Look through the pictures: are the names right, is any object left out?"
        return f'<p class="good">{said}</p>'
    rows = []
    for key, (number, pictures) in counts.items():
        kind = TITLES[key]
        where = "" if kind.counts == "picture" else f"<br> in {counted(pictures, 'picture')}"
        rows.append(
            f'<tr><th scope="row">{escape(kind.title)}</th><td class="count">{number:,}{where}</td>'
            f"<td>{escape(kind.meaning)}</td></tr>"
        )
    for reason, number, example in left_out:
        rows.append(
            f'<tr><th scope="row">{escape(reason)}</th><td class="count">{number:,}</td>'
            f"<td>Left out by training and here. The first: {escape(example)}</td></tr>"
        )
    header = '<th scope="col">What</th><th scope="col">How many</th><th scope="col" class="text">What it means</th>'
    head = f"<thead><tr>{header}</tr></thead>"
    body = scroll(f'<table class="suspects">{head}<tbody>{"".join(rows)}</tbody></table>', "What looks wrong")
    said = (
        f"{counted(len(survey.found), 'picture')} of {len(survey.scan.images):,} with a suspect, the worst kind first."
    )
    return f'<p class="bad">{escape(said)} A suspect need not be wrong: look at it.</p>{whole}{body}'


def _left_out(survey: Survey) -> list[tuple[str, int, str]]:
    """Entries of the json that are not drawn: reason, how many, the first."""
    skipped = survey.scan.skipped
    return [
        (reason, count, skipped.entries[reason][0])
        for reason, count in skipped.counts.items()
        if not reason.startswith("crowd")
    ]


def _suspects(survey: Survey, suspects: Sequence[Shown], names: Sequence[str]) -> str:
    counts = survey.counts()
    options = "".join(f'<option value="{key}">{escape(TITLES[key].title)}</option>' for key in counts)
    said = "Suspect objects have a red frame and a number."
    if len(suspects) < len(survey.found):
        said += (
            f" {len(suspects)} of {len(survey.found):,} such pictures are shown, some of each kind; --most shows more."
        )
    choice = (
        '<div class="controls"><label>Show <select id="kind"><option value="">all</option>'
        f'{options}</select></label><span id="shown" role="status"></span></div>'
    )
    return f"<p>{escape(said)}</p>{choice}{_list(suspects, names)}"


def _spread(survey: Survey) -> str:
    if not survey.found:
        return "Pictures with all classes, if there is room, and an even spread over the file."
    return "Nothing is suspect here: pictures with classes that no other shows, and an even spread over the file."


def _list(shown: Sequence[Shown], names: Sequence[str]) -> str:
    return f'<ul class="pictures">{"".join(_figure(one, names) for one in shown)}</ul>'


def _figure(shown: Shown, names: Sequence[str]) -> str:
    picture = shown.picture
    name = picture.entry.file_name or picture.entry.coco_url
    height, width = picture.hw
    drawings = _image(shown.drawing, f"{name} with its annotations", "This picture cannot be drawn.")
    if shown.trained or (shown.note and shown.drawing):
        drawings += _image(shown.trained, f"{name} as training sees it", shown.note)
    objects = counted(len(picture.things), "object")
    caption = f"<b>{escape(name)}</b><br>image {picture.entry.id} · {width} x {height} · {objects}"
    caption += _findings(picture.findings, picture.things, names) + escape(_class_list(picture.things, names))
    kinds = " ".join(dict.fromkeys(finding.kind for finding in picture.findings))
    return f'<li data-kinds="{kinds}"><figure>{drawings}<figcaption>{caption}</figcaption></figure></li>'


def _image(drawing: Drawing | None, text: str, otherwise: str) -> str:
    if drawing is None:
        return f'<p class="none">{escape(otherwise)}</p>'
    width, height = drawing.size
    return f'<img src="{drawing.source}" width="{width}" height="{height}" alt="{escape(text)}" loading="lazy">'


def _findings(findings: Sequence[Finding], things: Sequence[Thing], names: Sequence[str]) -> str:
    if not findings:
        return "<br>"
    numbers, lines = numbered(findings), []
    for finding in findings[:LISTED]:
        if finding.place is None:
            lines.append(f"<li>{escape(finding.text)}</li>")
            continue
        thing = things[finding.place]
        where = f"{names[thing.label]}, annotation {thing.entry['id']}"
        badge = f'<span class="badge">{numbers[finding.place]}</span>'
        lines.append(f"<li>{badge} {escape(where)}: {escape(finding.text)}</li>")
    if len(findings) > LISTED:
        lines.append(f"<li>and {len(findings) - LISTED} more</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _class_list(things: Sequence[Thing], names: Sequence[str]) -> str:
    """ "3 apple, 1 pear", the most frequent first."""
    counts = collections.Counter(names[thing.label] for thing in things)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _classes(survey: Survey) -> str:
    categories = survey.scan.categories
    images, objects = survey.classes()
    order = sorted(range(len(categories)), key=lambda k: -objects[k])
    rows = [
        (
            categories.names[k],
            str(categories.ids[k]),
            f"{images[k]:,}",
            f"{objects[k]:,}",
            GROUPS[categories.frequency[k]],
        )
        for k in order
    ]
    empty = int((objects == 0).sum())
    said = f"{counted(empty, 'class has', 'classes have')} no object in this json." if empty else ""
    header = ("Class", "Category id", "Pictures", "Objects", "Group")
    return f"<p>{escape(said)}</p>" * bool(said) + table("Classes by number of objects", header, rows)
