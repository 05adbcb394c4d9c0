"""`clarion eval`: how well a model predicts a text, and how far it is from a reference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from clarion.cli import options
from clarion.cli.progress import counter

if TYPE_CHECKING:
    from clarion.evaluate.evaluation import Evaluation

SHOWN_PLACES = 3
DEFAULT_CONTEXT = 512  # as llama.cpp's tool has it
DEFAULT_BATCH = 1024  # as `clarion.evaluate.scorers` has it, which takes long to import


@click.command("eval")
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=options.file_name)
@click.option("--text", "text_path", metavar="FILE", required=True, help="The text, UTF-8.")
@click.option(
    "--reference", metavar="MODEL|exact", help="Compare with this model, or with the same weights in float64."
)
@click.option(
    "--stride", metavar="N", type=int, help="Move a window by so many tokens, instead of chunks side by side."
)
@click.option("--chunks", metavar="N", type=int, help="Only the first so many chunks.")
@click.option(
    "--engine",
    type=click.Choice(["clarion", "llama-cpp"]),
    default="clarion",
    help="What computes.",
)
@click.option("--report", metavar="FILE", help="Write a page with figures and plots.")
@options.hub
@options.compiled(DEFAULT_BATCH, f"Tokens in a chunk or window.  [default: {DEFAULT_CONTEXT}]")
@options.threads
@options.as_json
@options.debug
def evaluate(
    models: tuple[str, ...],
    fetched_path: str | None,
    text_path: str,
    reference: str | None,
    stride: int | None,
    chunks: int | None,
    engine: str,
    report: str | None,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measures perplexity on a text and, with --reference, the Kullback-Leibler divergence from it.

    The text is cut into chunks of --context tokens (512), of which the second half is scored, as llama.cpp's
    llama-perplexity does. Without MODEL it is the built-in one;
    with --reference exact there is at most one.
    """
    from pathlib import Path

    from clarion.cli.prompt import read_text
    from clarion.evaluate.request import EXACT, Request, run
    from clarion.gguf.writable import check_writable

    models = (*models, *([fetched_path] if fetched_path is not None else []))
    if report is not None:
        check_writable(report, reads=(*models, text_path, *([reference] if reference else [])))
    request = Request(
        models=tuple(map(Path, models)),
        text=read_text(None, text_path),
        reference=EXACT if reference == EXACT else Path(reference) if reference is not None else None,
        context=DEFAULT_CONTEXT if context is None else context,
        stride=stride,
        n_chunks=chunks,
        engine=engine,
        threads=threads,
        kv=kv,
        options={"activations": activations, "isa": isa, "batch": batch},
        details=report is not None or as_json,
    )
    with counter("evaluate") as progress:
        evaluation = run(request, progress)
    if report is not None:
        from clarion.evaluate.report import write

        write(Path(report), evaluation)
    print(json.dumps(evaluation.report()) if as_json else _table(evaluation))


def _table(evaluation: Evaluation) -> str:
    """A line for each model, and under them the worst places."""
    report = evaluation.report()
    reference = report["reference"]
    lines = [
        f"{report['scored_tokens']} of {report['text_tokens']} tokens scored in {report['chunks']} chunks"
    ]
    for figures in [*report["models"], *([reference] if reference else [])]:
        role = " (reference)" if figures is reference else ""
        lines += [
            f"{figures['model']}: {figures['engine']}{role}",
            f"  perplexity       {figures['perplexity']:.4f} ± {figures['perplexity_error']:.4f}",
            f"  speed            {figures['tokens_per_second']:.0f} tokens/s",
        ]
        if "divergence" in figures:
            d = figures["divergence"]
            lines += [
                f"  mean KLD         {d['mean']:.3e}",
                f"  median           {d['median']:.3e}",
                f"  99%, 99.9%       {d['p99']:.3e}, {d['p999']:.3e}",
                f"  greatest         {d['greatest']:.3e}",
                f"  same choice      {figures['same_choice']:.2%}",
            ]
            for place in figures["worst"][:SHOWN_PLACES]:
                passage = f"{place['before'][-40:]}[{place['token']}]"
                lines.append(f"  KLD {place['divergence']:.2e} at token {place['position']}: {passage!r}")
    return "\n".join(lines)
