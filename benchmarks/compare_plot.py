"""A comparison as bars, in SVG drawn by hand: shares of the machine's two peaks, model by model."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from compare_table import Beside, generation, prompt, spread
from engines import Engine

COLORS = ("#94a3b8", "#64748b", "#334155", "#93c5fd", "#1d4ed8", "#86efac", "#15803d", "#fca5a5")
LABELS, PANEL, GAP = 150, 340, 110  # pixels across: names, a panel of bars, what parts two panels
BAR, SPACE, TOP = 12, 14, 58  # pixels down: a bar, what parts two groups, title and legend
STYLE = "font-family: system-ui, sans-serif; font-size: 11px"

Shares = Callable[[Beside, Engine], float]
Speed = Callable[[Engine], float]


def plot(groups: Sequence[Beside], length: int) -> str:
    """Two panels: prompts of `length` tokens beside the products, generation beside the bandwidth."""
    names = list(dict.fromkeys(engine.name for group in groups for engine in group.engines))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    height = TOP + sum(BAR * len(group.engines) + SPACE for group in groups) + 24
    width = LABELS + 2 * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" style="{STYLE}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(colors),
        *_panel(
            groups,
            colors,
            f"prompt of {length} tokens: share of the multiply peak, and tokens/s",
            LABELS,
            height,
            lambda group, engine: group.of_products(engine, length),
            lambda engine: spread(engine, prompt(length)).median,
        ),
        *_panel(
            groups,
            colors,
            "generation: share of the read bandwidth, and tokens/s",
            LABELS + PANEL + GAP,
            height,
            Beside.of_bandwidth,
            lambda engine: spread(engine, generation()).median,
        ),
    ]
    y = TOP
    for group in groups:
        middle = y + BAR * len(group.engines) / 2
        threads = f"{group.threads} thread" + "s" * (group.threads > 1)
        parts.append(_text(LABELS - 8, middle - 2, group.model, "end", "font-weight: 600"))
        parts.append(_text(LABELS - 8, middle + 11, threads, "end"))
        y += BAR * len(group.engines) + SPACE
    return "\n".join((*parts, "</svg>")) + "\n"


def _panel(
    groups: Sequence[Beside],
    colors: dict[str, str],
    title: str,
    left: int,
    height: int,
    share: Shares,
    speed: Speed,
) -> list[str]:
    parts = [_text(left, TOP - 22, title, "start", "font-weight: 600")]
    for percent in range(0, 101, 20):
        x = left + PANEL * percent / 100
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{height - 24}" stroke="#e2e8f0"/>')
        parts.append(_text(x, height - 10, f"{percent}%", "middle"))
    y = TOP
    for group in groups:
        for engine in group.engines:
            value = speed(engine)
            if not math.isnan(value):
                reached = PANEL * min(share(group, engine), 1.0)
                parts.append(
                    f'<rect x="{left}" y="{y}" width="{reached:.1f}" height="{BAR - 2}" '
                    f'fill="{colors[engine.name]}"/>'
                )
                parts.append(_text(left + reached + 4, y + BAR - 3, f"{value:.1f}", "start"))
            y += BAR
        y += SPACE
    return parts


def _legend(colors: dict[str, str]) -> list[str]:
    parts, x = [], LABELS
    for name, color in colors.items():
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{color}"/>')
        parts.append(_text(x + 14, 17, name, "start"))
        x += 30 + 7 * len(name)
    return parts


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{styled}>{html.escape(words)}</text>'
