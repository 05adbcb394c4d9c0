"""Plots as SVG, drawn by hand: a page that contains them needs nothing from elsewhere."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 680, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44
_LEGEND_COLUMNS = 3
COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour: a line, dots, or bars from the bottom."""

    name: str
    points: Points
    kind: str = "line"
    labels: Sequence[str] = ()  # of dots


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values to pixels; logarithmic ones by their decimal logarithm."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float, logarithmic: bool, zero: bool) -> _Axis:
        if logarithmic:
            values = [math.log10(value) for value in values if value > 0]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if zero and not logarithmic:
            low = min(low, 0.0)
        margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return cls(low if zero else low - margin, high + margin, begin, end, logarithmic)

    def at(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.logarithmic)

    def ticks(self) -> list[tuple[float, str]]:
        """About five values and their labels."""
        step = _round((self.high - self.low) / 5)
        if self.logarithmic:
            step = max(1.0, round(step))
        first = math.ceil(self.low / step)
        marks = [(first + i) * step for i in range(int((self.high - first * step) / step) + 1)]
        if self.logarithmic:
            return [(10.0**mark, f"1e{mark:.0f}") for mark in marks]
        return [(mark, f"{mark:.6g}") for mark in marks]


def plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    zero: bool = False,
    x_names: Sequence[str] = (),
) -> str:
    """One plot and its legend, for a page whose style knows them.

    Logarithmic axes only show what is above zero.

    Args:
        zero: the vertical axis begins at zero.
        x_names: what stands at 0, 1, 2, ... of the horizontal axis instead of numbers.
    """
    parts = _plot(series, x_label, y_label, log_x, log_y, zero, x_names)
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg {view} role="img" aria-label="{html.escape(y_label)}">'
    return f"{head}{''.join(parts)}</svg>{_legend(series)}"


def standalone(
    series: Sequence[Series], x_label: str, y_label: str, *, log_y: bool = False, x_names: Sequence[str] = ()
) -> str:
    """The same as a file of its own, the legend above it."""
    parts = _plot(series, x_label, y_label, False, log_y, False, x_names)
    legend = []
    for i, (one, color) in enumerate(zip(series, _cycle(len(series)), strict=True)):
        x, y = _LEFT + 10 + i % _LEGEND_COLUMNS * 200, 14 + i // _LEGEND_COLUMNS * 18
        legend.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>')
        legend.append(f'<text x="{x + 10}" y="{y + 4}">{html.escape(one.name)}</text>')
    top = 6 + 18 * -(-len(series) // _LEGEND_COLUMNS)
    view = f'viewBox="0 {-top} {WIDTH} {HEIGHT + top}" width="{WIDTH}" height="{HEIGHT + top}"'
    style = (
        "text{font:11px system-ui,sans-serif;fill:#6b7280}.grid{stroke:#e5e7eb}rect{fill:#fff}"
        "@media(prefers-color-scheme:dark){rect{fill:#111827}.grid{stroke:#374151}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view}><style>{style}</style>'
        f'<rect y="{-top}" width="{WIDTH}" height="{HEIGHT + top}"/>'
        f'<g transform="translate(0 {-top})">{"".join(legend)}</g>{"".join(parts)}</svg>\n'
    )


def _plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    log_x: bool,
    log_y: bool,
    zero: bool,
    x_names: Sequence[str],
) -> list[str]:
    """Axes and points."""
    points = [point for one in series for point in one.points]
    x = _Axis.over([p[0] for p in points], _LEFT, WIDTH - _RIGHT, log_x, False)
    y = _Axis.over([p[1] for p in points], HEIGHT - _BOTTOM, _TOP, log_y, zero)
    parts = []
    for value, label in y.ticks():
        at = f"{y.at(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at}" dy="4" text-anchor="end">{label}</text>')
    for value, label in [(float(i), html.escape(name)) for i, name in enumerate(x_names)] or x.ticks():
        at = f"{x.at(value):.1f}"
        parts.append(f'<line class="grid" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" x1="{at}" x2="{at}"/>')
        parts.append(f'<text x="{at}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{label}</text>')
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text x="13" y="{middle}" transform="rotate(-90 13 {middle})" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    for one, color in zip(series, _cycle(len(series)), strict=True):
        parts.append(_draw(one, x, y, color))
    return parts


def _draw(series: Series, x: _Axis, y: _Axis, color: str) -> str:
    places = [(x.at(a), y.at(b)) for a, b in series.points if x.holds(a) and y.holds(b)]
    if series.kind == "line":
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        return f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5"/>'
    if series.kind == "bars":
        # A staircase: several of them can be told apart where they overlap.
        width = places[1][0] - places[0][0] if len(places) > 1 else 1.0
        steps = " ".join(f"{a - width / 2:.1f},{b:.1f} {a + width / 2:.1f},{b:.1f}" for a, b in places)
        return f'<polyline points="{steps}" fill="{color}" fill-opacity="0.12" stroke="{color}"/>'
    labels = series.labels or [series.name] * len(series.points)
    dots = []
    for (a, b), label in zip(series.points, labels, strict=True):
        if x.holds(a) and y.holds(b):
            dots.append(
                f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3" fill="{color}" fill-opacity="0.7">'
                f"<title>{html.escape(label)}: {b:.3g}</title></circle>"
            )
    return "".join(dots)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    items = [
        f'<span><i style="background:{color}"></i>{html.escape(one.name)}</span>'
        for one, color in zip(series, _cycle(len(series)), strict=True)
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def _cycle(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]


def _round(step: float) -> float:
    """The least of 1, 2, 5 × 10^k that is not below the step."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)
