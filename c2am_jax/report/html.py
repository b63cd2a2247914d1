"""Pieces of a page. Whatever comes from outside is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from c2am_jax.frequency import GROUPS
from c2am_jax.visualization.names import fitting

HEAD = 210  # pixels of a name that stands upright above a column


class Markup(str):
    """Text that is html already, and is not escaped again."""


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


def number(value: float | None, *, scale: float = 1, digits: int = 3) -> str:
    """A number, or a dash for what does not exist."""
    return "–" if value is None else f"{scale * value:,.{digits}f}"


def percent(value: float | None) -> str:
    """Hundredths with one decimal, or a dash."""
    return number(value, scale=100, digits=1)


def change(value: float | None) -> Markup:
    """A difference of two shares in hundredths, with its sign and the colour of better or worse."""
    if value is None:
        return Markup("–")
    shown = f"{100 * value:+.1f}".replace("-", "−")
    if float(shown.replace("−", "-")) == 0:
        return Markup("0.0")
    return Markup(f'<span class="{"up" if value > 0 else "down"}">{shown}</span>')


def group(name: str) -> Markup:
    """A frequency group with its colour."""
    known = name in (*GROUPS.values(), "all")
    return Markup(f'<span class="key {name}">{name}</span>' if known else escape(name))


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Large numbers under their names."""
    parts = (f'<div class="tile"><dt>{escape(name)}</dt><dd>{_cell(value)}</dd></div>' for name, value in values)
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def scroll(content: str, name: str, *, kind: str = "") -> str:
    """A region that scrolls by itself and that the keyboard reaches; `content` is html."""
    return f'<div class="scroll {kind}" role="group" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names the rows; texts, or `Markup`."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for first, *cells in rows:
        rest = "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{_cell(first)}</th>{rest}</tr>')
    return _captioned(f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>", caption)


def heat(
    caption: str, names: Sequence[str], shares: Sequence[Sequence[float | None]], texts: Sequence[Sequence[str]]
) -> str:
    """A square table whose cells are as strong as their share (0 to 1); long names above its columns are shortened."""
    head = "<td></td>" + "".join(
        f'<th scope="col" title="{escape(name)}"><span>{escape(fitting(name, "", HEAD))}</span></th>' for name in names
    )
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
