"""The loss over the tokens seen, as an SVG that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from clarion.evaluate.plots import Series, plot

_STYLE = (
    "<style>text{font:11px sans-serif;fill:#444}.grid{stroke:#ddd}</style>"
    '<rect width="100%" height="100%" fill="#fff"/>'
)


def curve(entries: Sequence[dict[str, float]]) -> str:
    """The picture of a run's log: loss in training, and on the held-out text (dots)."""
    trained = [(entry["tokens"] / 1e6, entry["loss"]) for entry in entries]
    held_out = [(entry["tokens"] / 1e6, entry["held_out"]) for entry in entries if "held_out" in entry]
    series = [Series("training", trained), Series("held out", held_out, "dots")]
    drawing, end, _ = plot(series, "million tokens", "nats per token").partition("</svg>")
    begin, _, rest = drawing.partition(">")
    return f'{begin} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}{end}\n'
