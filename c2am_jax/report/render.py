"""Pages that open without a network: one frame and one style for all, with their sections and data put in."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import c2am_jax
from c2am_jax.files import write_output
from c2am_jax.report.gallery import Gallery
from c2am_jax.report.sections import all_sections, columns
from c2am_jax.storage import remote_errors

_LOG = logging.getLogger(__name__)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def render(
    title: str,
    subtitle: str,
    data: Mapping[str, Any],
    pictures: Gallery | None,
    configuration: Mapping[str, Any],
    environment: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
      title, subtitle: what was evaluated.
      data: of `collect.numbers`.
      pictures: None if there are no images.
      configuration: of the run, or what was scored.
      environment: names and values.
    """
    keys = columns(data)
    rows = [[category[column["key"]] for column in keys] for category in data["categories"]]
    embedded = {name: value for name, value in data.items() if name != "categories"}
    embedded["table"] = {"columns": keys, "rows": rows}
    sections = all_sections(data, pictures, configuration, environment)
    return framed(title, subtitle, sections, scripts=table_scripts(embedded))


def framed(
    title: str, subtitle: str, sections: Sequence[tuple[str, str, str]], *, scripts: str = "", style: str = ""
) -> str:
    """A page: head, navigation and sections, with the style of all pages.

    Args:
      title, subtitle: texts.
      sections: identifier, title and html of each.
      scripts: html of its script elements.
      style: css of this page alone.
    """
    parts = {
        "title": escape(title),
        "subtitle": escape(subtitle),
        "style": asset("report", "style.css") + style,
        "navigation": "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text, _ in sections),
        "sections": "\n".join(
            f'<section id="{name}" aria-labelledby="{name}-title">'
            f'<h2 id="{name}-title">{escape(text)}</h2>{body}</section>'
            for name, text, body in sections
        ),
        "footer": f"Made by c2am_jax {escape(c2am_jax.__version__)}.",
        "scripts": scripts,
    }
    return _PLACE.sub(lambda match: parts[match[1]], asset("report", "frame.html"))


def asset(room: str, name: str) -> str:
    """The text of a file that lies beside the modules of a room."""
    return resources.files(f"c2am_jax.{room}").joinpath(name).read_text("utf-8")


def table_scripts(data: Mapping[str, Any]) -> str:
    """The page's data as json, and the script that fills its table of categories from "table": columns and rows."""
    return (
        f'<script type="application/json" id="report-data">{script_json(data)}</script>\n'
        f"<script>\n{asset('report', 'table.js')}</script>"
    )


def script_json(value: Any) -> str:
    """Json that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write(path: Path, page: str) -> None:
    """Write the page and say how large it is."""
    content = page.encode()
    with remote_errors(path):
        write_output(path, content)
    _LOG.info("%s: %.1f MB", path, len(content) / 1e6)
