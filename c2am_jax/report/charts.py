"""Charts as inline SVG: no library, colours from the page's style sheet, so that they follow light and dark."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from c2am_jax.frequency import GROUPS

WIDTH, HEIGHT = 720, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 52


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, four to eight of them, from the first inside to the last inside."""
    step = 10 ** np.floor(np.log10((high - low) / 2))
    while (high - low) / step > 8:
        step *= 2 if (high - low) / step <= 16 else 2.5
    first = np.ceil(low / step - 1e-9)
    return [float(round(v * step, 10)) + 0.0 for v in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def _frame(title: str, x_name: str, y_name: str, x_ticks: Mapping[str, float], y_ticks: Mapping[str, float]) -> str:
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for name, at in y_ticks.items():
        parts.append(f'<path class="grid" d="M{_x(0):.0f} {_y(at):.1f}H{_x(1):.0f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{_y(at) + 5:.1f}" text-anchor="end">{escape(name)}</text>')
    for name, at in x_ticks.items():
        parts.append(f'<path class="grid" d="M{_x(at):.1f} {_y(0):.0f}v5"/>')
        parts.append(f'<text x="{_x(at):.1f}" y="{_y(0) + 22:.0f}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<path class="axis" d="M{_x(0):.0f} {_y(1):.0f}V{_y(0):.0f}H{_x(1):.0f}"/>')
    parts.append(f'<text x="{_x(0.5):.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    middle = f"{_y(0.5):.0f}"
    parts.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">')
    parts.append(f"{escape(y_name)}</text>")
    return "".join(parts)


def by_frequency(
    values: Sequence[float | None], groups: Sequence[str], *, title: str, y_name: str, top: float = 0
) -> str:
    """A point per category, in the order given (most training images first), coloured by group.

    Args:
      values: None leaves a place empty; below 0 the axis goes on below it.
      groups: "r", "c" or "f" of each.
      title: said by screen readers.
      y_name: of the vertical axis.
      top: of the vertical axis; 0: the largest value.
    """
    known = [v for v in values if v is not None]
    high, low = top or max(known, default=0) or 1, min(0, *known, 0)
    y_ticks = {f"{v:g}": (v - low) / (high - low) for v in _ticks(low, high)}
    x_ticks = {f"{v:g}": v / max(len(values), 1) for v in _ticks(0, max(len(values), 1))}
    svg = [_frame(title, "categories, most training images first", y_name, x_ticks, y_ticks)]
    if low < 0:
        svg.append(f'<path class="axis" d="M{_x(0):.0f} {_y(-low / (high - low)):.1f}H{_x(1):.0f}"/>')
    for letter, name in GROUPS.items():
        points = [
            f"M{_x((i + 0.5) / len(values)):.1f} {_y((v - low) / (high - low)):.1f}h0"
            for i, (v, g) in enumerate(zip(values, groups, strict=True))
            if g == letter and v is not None
        ]
        svg.append(f'<path class="points {name}" d="{"".join(points)}"/>')
    return "".join(svg) + "</svg>"


def side_by_side(bars: Mapping[str, Sequence[float | None]], *, title: str, y_name: str) -> str:
    """Two bars for each name, of classes "a" and "b", from 0 to 1 in per cent; None: no bar."""
    top = 1.1 * max((v for pair in bars.values() for v in pair if v is not None), default=0) or 1  # room for a number
    y_ticks = {f"{100 * v:g}": v / top for v in _ticks(0, top)}
    x_ticks = {name: (i + 0.5) / len(bars) for i, name in enumerate(bars)}
    svg = [_frame(title, "", y_name, x_ticks, y_ticks), '<g class="bars">']
    width = 0.3 * (_x(1 / len(bars)) - _x(0))
    for centre, pair in zip(x_ticks.values(), bars.values(), strict=True):
        for letter, left, value in zip("ab", (_x(centre) - width - 1, _x(centre) + 1), pair, strict=True):
            if value is None:
                continue
            y = _y(value / top)
            svg.append(f'<path class="{letter}" d="M{left:.1f} {_y(0):.0f}V{y:.1f}h{width:.1f}V{_y(0):.0f}z"/>')
            svg.append(
                f'<text x="{left + width / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle">{100 * value:.1f}</text>'
            )
    return "".join(svg) + "</g></svg>"


def reliability(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """Precision over score for each named curve ("all" or a group's name), and the diagonal of perfect calibration."""
    ticks = {f"{v / 5:.1f}": v / 5 for v in range(6)}
    svg = [_frame(title, "score", "precision", ticks, ticks)]
    svg.append(f'<path class="ideal" d="M{_x(0):.0f} {_y(0):.0f}L{_x(1):.0f} {_y(1):.0f}"/>')
    for name, points in curves.items():
        places = [f"{_x(min(max(score, 0), 1)):.1f} {_y(precision):.1f}" for score, precision in points]
        if places:
            svg.append(f'<path class="line {escape(name)}" d="M{"L".join(places)}"/>')
            svg.append(f'<path class="points {escape(name)}" d="{"".join(f"M{p}h0" for p in places)}"/>')
    return "".join(svg) + "</svg>"


def by_share(curves: Mapping[str, Sequence[tuple[float, float]]], *, mark: float, title: str, y_name: str) -> str:
    """A line for each named curve ("all" or a group's name) over shares on a logarithmic axis, and one at `mark`.

    Args:
      curves: points (share above 0, value from 0 to 100).
      mark: a share that gets a dashed vertical line.
      title: said by screen readers.
      y_name: of the vertical axis.
    """
    shares = sorted({share for points in curves.values() for share, _ in points} | {mark})
    low, high = np.log(shares[0]), np.log(shares[-1])

    def place(share: float) -> float:
        return float((np.log(share) - low) / (high - low)) if high > low else 0.5

    top = max((value for points in curves.values() for _, value in points), default=0) or 1
    x_ticks = {f"{share:.2g}": place(share) for share in shares}
    svg = [
        _frame(
            title, "detections of each image / categories", y_name, x_ticks, {f"{v:g}": v / top for v in _ticks(0, top)}
        )
    ]
    svg.append(f'<path class="ideal" d="M{_x(place(mark)):.1f} {_y(0):.0f}V{_y(1):.0f}"/>')
    for name, points in curves.items():
        places = [f"{_x(place(share)):.1f} {_y(value / top):.1f}" for share, value in points]
        if places:
            svg.append(f'<path class="line {escape(name)}" d="M{"L".join(places)}"/>')
            svg.append(f'<path class="points {escape(name)}" d="{"".join(f"M{p}h0" for p in places)}"/>')
    return "".join(svg) + "</svg>"
