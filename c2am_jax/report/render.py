"""The page: the template with its sections and data put in."""

import json
import logging
import re
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from c2am_jax.errors import UserError
from c2am_jax.files import as_path, is_remote
from c2am_jax.report.gallery import Gallery
from c2am_jax.report.sections import all_sections, columns
from c2am_jax.storage import check_writable, remote_errors

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
    sections = all_sections(data, pictures, configuration, environment)
    keys = columns(data)
    rows = [[category[column["key"]] for column in keys] for category in data["categories"]]
    embedded = {name: value for name, value in data.items() if name != "categories"}
    embedded["table"] = {"columns": keys, "rows": rows}
    parts = {
        "title": escape(title),
        "subtitle": escape(subtitle),
        "navigation": "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text, _ in sections),
        "sections": "\n".join(
            f'<section id="{name}" aria-labelledby="{name}-title">'
            f'<h2 id="{name}-title">{escape(text)}</h2>{body}</section>'
            for name, text, body in sections
        ),
        "footer": f"Made by c2am_jax {escape(environment.get('c2am_jax', ''))}.",
        "data": script_json(embedded),
    }
    return filled(resources.files("c2am_jax.report").joinpath("template.html").read_text("utf-8"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A page: the template with html in its places ``{{name}}``, and the style of all pages at ``{{style}}``."""
    known = {"style": resources.files("c2am_jax.report").joinpath("style.css").read_text("utf-8"), **parts}
    return _PLACE.sub(lambda match: known[match[1]], template)


def script_json(value: Any) -> str:
    """Json that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def check_place(path: str | Path, images: str | Path | None = None) -> None:
    """Look before a long evaluation whether the report can be written at its end.

    Raises:
      UserError: `path` is no place for a file, or `images` no folder.
    """
    path = as_path(path)
    if is_remote(path):
        check_writable(path.parent)
    elif path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--report {path}: {'a folder' if path.is_dir() else f'no folder {path.parent}'}; name a file")
    if images and not Path(images).is_dir():
        raise UserError(f"--images {images}: no such folder")


def write(path: Path, page: str) -> None:
    """Write the page and say how large it is."""
    content = page.encode()
    with remote_errors(path):
        path.write_bytes(content)
    _LOG.info("%s: %.1f MB", path, len(content) / 1e6)
