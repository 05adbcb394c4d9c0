"""`clarion quantize`: a model in formats of fewer bits."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.progress import bar, stages
from clarion.cli.sections import completing
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion.quantize.model import Quantized


def _types() -> list[str]:
    from clarion.gguf.file_types import ALIASES, RECIPES

    return [*RECIPES, *ALIASES]


class _Command(click.Command):
    """Its help ends with all types."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Types"):
            formatter.write_text(" ".join(_types()))


@click.command(cls=_Command)
@click.argument("source", metavar="IN", type=options.file_name)
@click.argument("out", metavar="OUT", type=options.file_name)
@click.argument("type_", metavar="[TYPE]", required=False, shell_complete=completing(_types))
@click.option("--budget", metavar="SIZE", help="Choose formats for a file of this size, as 5GB or 4.5GiB.")
@click.option("--text", metavar="FILE", help="What to measure formats with, for --budget.")
@click.option("--formats", metavar="A,B,...", help="What --budget chooses from.")
@options.as_json
@click.option("--imatrix", metavar="FILE", help="Importance of the columns, from clarion imatrix.")
@click.option(
    "--tensor", "overrides", metavar="PATTERN=TYPE", multiple=True, help="Another format; first that fits."
)
@click.option("--allow-requantize", is_flag=True, help="Also of weights that are quantized already.")
@click.option("--keep-split", is_flag=True, help="Write parts as they are read.")
@options.threads
@options.debug
def quantize(
    source: str,
    out: str,
    type_: str | None,
    budget: str | None,
    text: str | None,
    formats: str | None,
    as_json: bool,
    imatrix: str | None,
    overrides: tuple[str, ...],
    allow_requantize: bool,
    keep_split: bool,
    threads: int | None,
) -> None:
    """Writes the GGUF file IN as OUT, its weights in the formats of a recipe.

    TYPE is a recipe, as Q4_K_M or IQ3_XS, or a format, as Q8_0 or MXFP4. PATTERN is a regular expression that
    is searched in the names of tensors: --tensor 'ffn_down=Q6_K'.

    With --budget in the place of TYPE, each matrix gets the format that serves the whole best: what each
    format does to the model's output is measured on a text, and the frontier is printed.
    """
    if (type_ is None) == (budget is None):
        raise click.UsageError("expected either TYPE or --budget; clarion quantize --help lists the types")
    pairs = [_override(text) for text in overrides]
    common: dict[str, Any] = {
        "imatrix": imatrix,
        "overrides": pairs,
        "allow_requantize": allow_requantize,
        "threads": threads,
    }
    if budget is not None:
        if keep_split:
            raise click.UsageError("--keep-split: a budget is that of one file")
        _to_budget(source, out, budget, text, formats, as_json, common)
        return
    if text is not None or formats is not None:
        raise click.UsageError("--text and --formats go with --budget")
    from clarion.quantize import quantize as write

    with bar("quantize") as progress:
        done = write(source, out, str(type_), keep_split=keep_split, progress=progress, **common)
    if as_json:
        print(json.dumps(done.report()))
    else:
        _print(done)


def _to_budget(
    source: str,
    out: str,
    budget: str,
    text: str | None,
    formats: str | None,
    as_json: bool,
    common: dict[str, Any],
) -> None:
    from clarion.cli.prompt import read_text
    from clarion.convert import parse_size
    from clarion.quantize.budget import quantize_to_budget
    from clarion.quantize.measure import CANDIDATES

    n_bytes = parse_size(budget)
    with stages() as progress:
        done, mixture = quantize_to_budget(
            source,
            out,
            n_bytes,
            text=read_text(None, text) if text is not None else None,
            candidates=formats.split(",") if formats is not None else CANDIDATES,
            progress=progress,
            **common,
        )
    if as_json:
        print(json.dumps({"path": out, "budget": n_bytes, **done.report(), **mixture.report()}))
        return
    from clarion.cli.frontier import show

    show(mixture, n_bytes)
    _print(done)


def _print(done: Quantized) -> None:
    for path in done.paths:
        print(path)
    before, after = done.bits_per_weight
    formats = ", ".join(f"{n} {format}" for format, n in done.formats.items())
    print(f"{after:.2f} bits per weight, before: {before:.2f}; tensors: {formats}")
    for note in done.summary:
        print(f"clarion: {note}", file=sys.stderr)


def _override(text: str) -> tuple[str, str]:
    pattern, equals, format = text.rpartition("=")
    if not (pattern and equals and format):
        raise ParameterError(f"--tensor is {text!r}, expected PATTERN=TYPE")
    return pattern, format
