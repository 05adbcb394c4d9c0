"""`clarion convert`: a Hugging Face checkpoint becomes a GGUF file."""

from __future__ import annotations

import click

from clarion.cli import options
from clarion.cli.progress import bar
from clarion.cli.sections import completing


@click.command()
@click.argument("checkpoint", metavar="DIR_OR_REPO", type=options.file_name)
@click.argument("out", metavar="OUT", type=options.file_name)
@click.option(
    "--type",
    "type_",
    metavar="TYPE",
    shell_complete=completing(lambda: ("f16", "bf16", "f32", "q8_0")),
    help="Of the matrices: f16, bf16, f32 or q8_0.",
)
@click.option("--split-max-size", metavar="SIZE", help="Write parts of at most this size, as 2G or 500M.")
@options.debug
def convert(checkpoint: str, out: str, type_: str | None, split_max_size: str | None) -> None:
    """Writes a Hugging Face checkpoint, weights and tokenizer, as a GGUF file.

    DIR_OR_REPO is a folder with config.json, or a repository of Hugging Face's hub, as owner/name or
    owner/name@revision, which is downloaded into the hub's cache. Without --type matrices are written in bf16
    where the checkpoint has bf16 or float8, else in f16, and quantized ones (GPTQ, AWQ, compressed-tensors,
    MXFP4) are kept where a format of GGUF holds exactly their values.
    """
    from typing import cast

    from clarion.convert import convert as write
    from clarion.convert import parse_size
    from clarion.convert.model import WeightType

    max_bytes = parse_size(split_max_size) if split_max_size is not None else None
    kind = cast(WeightType | None, type_.lower() if type_ is not None else None)
    lines: list[str] = []
    with bar("convert") as progress:
        paths = write(checkpoint, out, kind, max_bytes=max_bytes, progress=progress, report=lines.append)
    for line in lines:
        click.echo(line, err=True)
    for path in paths:
        print(path)
