"""Pieces of a page. Whatever comes from outside is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from c2am_jax.frequency import GROUPS


def number(value: float | None, *, scale: float = 1, digits: int = 3) -> str:
    """A number, or a dash for what does not exist."""
    return "–" if value is None else f"{scale * value:,.{digits}f}"


def percent(value: float | None) -> str:
    """Hundredths with one decimal, or a dash."""
    return number(value, scale=100, digits=1)


def group(name: str) -> str:
    """A frequency group with its colour; html."""
    known = name in (*GROUPS.values(), "all")
    return f'<span class="key {name}">{name}</span>' if known else escape(name)


def scroll(content: str, name: str, *, kind: str = "") -> str:
    """A region that scrolls by itself and that the keyboard reaches; `content` is html."""
    return f'<div class="scroll {kind}" role="group" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, html_first: bool = False) -> str:
    """A table whose first column names the rows.

    Args:
      caption: text.
      header: texts.
      rows: texts; the first cell is html if `html_first`.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for first, *cells in rows:
        name = first if html_first else escape(first)
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{name}</th>{rest}</tr>')
    return _captioned(f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>", caption)


def heat(
    caption: str, names: Sequence[str], shares: Sequence[Sequence[float | None]], texts: Sequence[Sequence[str]]
) -> str:
    """A square table whose cells are as strong as their share (0 to 1)."""
    head = "<td></td>" + "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    body = []
    for name, row, words in zip(names, shares, texts, strict=True):
        cells = "".join(
            f'<td style="--share:{min(max(share or 0, 0), 1):.2f}">{escape(word)}</td>'
            for share, word in zip(row, words, strict=True)
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return _captioned(f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>", caption, kind="heat")


def _captioned(content: str, caption: str, *, kind: str = "") -> str:
    """A table under its caption, which stays where it is while the table scrolls."""
    named = f'<table class="{kind}" aria-label="{escape(caption)}">{content}</table>'
    return f'<figure class="table"><figcaption>{escape(caption)}</figcaption>{scroll(named, caption)}</figure>'


def legend(names: Iterable[str]) -> str:
    """The colours of the frequency groups."""
    return '<ul class="legend">' + "".join(f"<li>{group(name)}</li>" for name in names) + "</ul>"


def facts(items: Mapping[str, str]) -> str:
    """Names and values as a two-column table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="text name">{escape(value)}</td></tr>'
        for name, value in items.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"
