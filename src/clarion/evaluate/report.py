"""An evaluation as one page that needs nothing from elsewhere."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clarion.evaluate.evaluation import Evaluation, Passage, Track
from clarion.evaluate.figures import Divergence, Perplexity
from clarion.evaluate.plots import Series, plot
from clarion.evaluate.weights import TensorError
from clarion.gguf.writable import write_beside

_LINE_POINTS = 200  # of a line along the text
_SPREAD = 0.7  # of the way to the next kind of matrix
_LEAST = 1e-16  # of a divergence: below it float64 itself rounds
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;background:#fff;max-width:980px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}p{margin:.4rem 0}
.sub{color:#6b7280}svg{width:100%;height:auto}svg text{font-size:11px;fill:#6b7280}
.grid{stroke:#e5e7eb}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:.3rem .5rem;text-align:right;border-bottom:1px solid #e5e7eb;white-space:nowrap}
th{font-weight:600;color:#6b7280}th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere}
.legend span{margin-right:1rem;font-size:13px}
.legend i{display:inline-block;width:10px;height:10px;margin-right:5px}
blockquote{margin:.6rem 0;padding:.3rem .8rem;border-left:3px solid #dc2626;font-size:13px}
mark{background:#fde68a;white-space:pre-wrap}small{color:#6b7280}
@media(prefers-color-scheme:dark){body{color:#e5e7eb;background:#111827}.grid{stroke:#374151}
th,td{border-color:#374151}mark{color:#1f2937}}
"""


def write(path: Path, evaluation: Evaluation) -> None:
    """Writes the page.

    Raises:
        FileError: it cannot be written, or a model's file changed meanwhile.
    """
    text = page(evaluation).encode(errors="replace")  # names of files may be none
    write_beside(path, lambda file: file.write(text))


def page(evaluation: Evaluation) -> str:
    """The HTML."""
    tracks, reference = evaluation.models, evaluation.reference
    names = _names(tracks)
    sections = [("Figures", _table(evaluation, names))]
    if reference is not None:
        if len(tracks) > 1:
            sections.append(("Size against divergence", _sizes(tracks, names)))
        sections.append(("How often which divergence", _histogram(tracks, names)))
        sections.append(("Divergence along the text", _along(evaluation, names)))
    sections.append(("Perplexity along the text", _perplexities(evaluation, names)))
    if reference is not None:
        sections += _details(evaluation, names)
        for track, name in zip(tracks, names, strict=True):
            passages = "".join(map(_passage, evaluation.places(track)))
            sections.append((f"Worst passages: {name}", passages))
    against = "" if reference is None else f" · reference: {reference.path.name}, {reference.engine}"
    title = ", ".join(dict.fromkeys(track.path.name for track in tracks))
    body = "".join(f"<h2>{html.escape(head)}</h2>{content}" for head, content in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>"
        f'<p class="sub">{len(evaluation.positions):,} of {len(evaluation.tokens):,} tokens scored in '
        f"{len(evaluation.chunk_sizes)} chunks{html.escape(against)}</p>{body}</body></html>\n"
    )


def _names(tracks: Sequence[Track]) -> list[str]:
    """File and engine, as much of it as tells the tracks apart."""
    several = len({track.engine for track in tracks}) > 1
    return [f"{track.path.name}, {track.engine}" if several else track.path.name for track in tracks]


def _table(evaluation: Evaluation, names: Sequence[str]) -> str:
    reference = evaluation.reference
    heads = ["model", "MB", "perplexity", "tokens/s"]
    if reference is not None:
        heads += ["mean KLD", "median", "99%", "99.9%", "greatest", "same choice"]
    rows = []
    for track, name in zip(evaluation.models, names, strict=True):
        perplexity = Perplexity.of(track.surprise)
        cells = [
            name,
            f"{track.n_bytes / 1e6:.1f}",
            f"{perplexity.value:.4f} ± {perplexity.error:.4f}",
            f"{track.tokens_per_second:.0f}",
        ]
        if reference is not None:
            d = Divergence.of(track.divergence)
            cells += [f"{value:.2e}" for value in (d.mean, d.median, d.p99, d.p999, d.greatest)]
            cells.append(f"{(track.choice == reference.choice).mean():.2%}")
        rows.append(cells)
    if reference is not None:
        perplexity = Perplexity.of(reference.surprise)
        cells = [f"{reference.path.name}, {reference.engine}", f"{reference.n_bytes / 1e6:.1f}"]
        cells += [f"{perplexity.value:.4f} ± {perplexity.error:.4f}", f"{reference.tokens_per_second:.0f}"]
        rows.append(cells + [""] * 6)
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _sizes(tracks: Sequence[Track], names: Sequence[str]) -> str:
    series = [
        Series(name, [(track.n_bytes / 1e6, float(track.divergence.mean()))], "dots")
        for track, name in zip(tracks, names, strict=True)
    ]
    return plot(series, "megabytes of weights", "mean KLD, nats", log_y=True)


def _histogram(tracks: Sequence[Track], names: Sequence[str]) -> str:
    logs = [np.log10(np.maximum(track.divergence, _LEAST)) for track in tracks]
    low, high = min(float(x.min()) for x in logs), max(float(x.max()) for x in logs)
    edges = np.linspace(low, max(high, low + 0.1), 61)
    middles = 10 ** ((edges[:-1] + edges[1:]) / 2)
    series = []
    for name, x in zip(names, logs, strict=True):
        counts = np.histogram(x, edges)[0] / len(x) * 100
        points = list(zip(middles.tolist(), counts.tolist(), strict=True))
        series.append(Series(name, points, "bars"))
    return plot(series, "KLD, nats", "% of tokens", log_x=True, zero=True)


def _along(evaluation: Evaluation, names: Sequence[str]) -> str:
    groups = np.array_split(
        np.arange(len(evaluation.positions)), min(_LINE_POINTS, len(evaluation.positions))
    )
    series = []
    for track, name in zip(evaluation.models, names, strict=True):
        divergence = np.maximum(track.divergence, _LEAST)
        points = [(float(evaluation.positions[g[0]]), float(divergence[g].mean())) for g in groups]
        series.append(Series(name, points))
    return plot(series, "token of the text", "mean KLD, nats", log_y=True)


def _perplexities(evaluation: Evaluation, names: Sequence[str]) -> str:
    ends = np.cumsum(evaluation.chunk_sizes)
    series = []
    for track, name in zip(evaluation.models, names, strict=True):
        means = np.cumsum(track.surprise)[ends - 1] / ends
        positions = evaluation.positions[ends - 1].tolist()
        series.append(Series(name, list(zip(positions, np.exp(means).tolist(), strict=True))))
    return plot(series, "token of the text", "perplexity so far")


def _details(evaluation: Evaluation, names: Sequence[str]) -> list[tuple[str, str]]:
    """Errors by layer and by tensor, as far as they were measured."""
    found = list(zip(names, evaluation.details, strict=True)) if evaluation.details else []
    layers = [
        Series(name, [(float(i), error) for i, error in enumerate(details.layers)]) for name, details in found
    ]
    sections = []
    if any(series.points for series in layers):
        sections.append(("Error by layer", plot(layers, "layer", "relative error", log_y=True)))
    if any(details.tensors for _, details in found):
        kinds = list(dict.fromkeys(_kind(error.name) for _, details in found for error in details.tensors))
        for head, error_of in (
            ("Error of the weights", lambda error: error.error),
            ("Error of their products", lambda error: error.product_error),
        ):
            series = [_tensors(name, details.tensors, kinds, error_of) for name, details in found]
            x_label = "kind of matrix, its layers from left to right"
            sections.append((head, plot(series, x_label, "relative error", log_y=True, x_names=kinds)))
    return sections


def _tensors(
    name: str,
    errors: Sequence[TensorError],
    kinds: Sequence[str],
    error_of: Callable[[TensorError], float | None],
) -> Series:
    n_of = Counter(_kind(error.name) for error in errors)
    seen: Counter[str] = Counter()
    points, labels = [], []
    for error in errors:
        kind, y = _kind(error.name), error_of(error)
        x = kinds.index(kind) + _SPREAD * ((seen[kind] + 0.5) / n_of[kind] - 0.5)
        seen[kind] += 1
        if y is not None:
            points.append((x, y))
            labels.append(f"{error.name} ({error.format})")
    return Series(name, points, "dots", labels)


def _kind(name: str) -> str:
    """blk.7.ffn_up_exps.weight → ffn_up"""
    return re.sub(r"^blk\.\d+\.|_exps(?=\.)|\.weight$", "", name)


def _passage(place: Passage) -> str:
    return (
        f"<blockquote>{html.escape(place.before)}<mark>{_visible(place.token)}</mark>"
        f"{html.escape(place.after)}<br><small>token {place.position:,} · KLD {place.divergence:.3g} · "
        "chosen: "
        f"<mark>{_visible(place.choice)}</mark> · by the reference: "
        f"<mark>{_visible(place.reference_choice)}</mark></small></blockquote>"
    )


def _visible(token: str) -> str:
    """A token of nothing but line breaks is to be seen as well."""
    return html.escape(token.replace("\n", "⏎"))
