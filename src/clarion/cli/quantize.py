"""`clarion quantize`: a model in formats of fewer bits."""

from __future__ import annotations

import sys
from collections import Counter

import click

from clarion.cli import options
from clarion.cli.progress import bar
from clarion.errors import ParameterError


@click.command()
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.argument("type_", metavar="TYPE")
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
    type_: str,
    imatrix: str | None,
    overrides: tuple[str, ...],
    allow_requantize: bool,
    keep_split: bool,
    threads: int | None,
) -> None:
    """Writes the GGUF file IN as OUT, its weights in the formats of a recipe.

    TYPE is a recipe, as Q4_K_M or IQ3_XS, or a format, as Q8_0 or MXFP4. PATTERN is a regular expression that is
    searched in the names of tensors: --tensor 'ffn_down=Q6_K'.
    """
    from clarion.quantize import quantize as write

    pairs = [_override(text) for text in overrides]
    with bar("quantize") as progress:
        done = write(
            source,
            out,
            type_,
            imatrix=imatrix,
            overrides=pairs,
            allow_requantize=allow_requantize,
            keep_split=keep_split,
            threads=threads,
            progress=progress,
        )
    for path in done.paths:
        print(path)
    before, after = done.bits_per_weight
    formats = Counter(choice.format.name for choice in done.choices).most_common()
    print(
        f"{after:.2f} bits per weight, before: {before:.2f}; tensors: {', '.join(f'{n} {f}' for f, n in formats)}"
    )
    for note in done.notes:
        print(f"clarion: {note}", file=sys.stderr)


def _override(text: str) -> tuple[str, str]:
    pattern, equals, format = text.rpartition("=")
    if not (pattern and equals and format):
        raise ParameterError(f"--tensor is {text!r}, expected PATTERN=TYPE")
    return pattern, format
