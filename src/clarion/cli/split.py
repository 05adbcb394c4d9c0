"""`clarion split` and `clarion merge`: one file into parts, and back."""

from __future__ import annotations

import click

from clarion.cli import options
from clarion.cli.progress import bar


@click.command()
@click.argument("source", metavar="IN", type=options.file_name)
@click.argument("out", metavar="OUT", type=options.file_name)
@click.option(
    "--max-size", metavar="SIZE", default="2G", show_default=True, help="Of a part's tensors, as 2G or 500M."
)
@options.debug
def split(source: str, out: str, max_size: str) -> None:
    """Writes a model as parts OUT-00001-of-0000N.gguf and so on. Any part opens all of them."""
    from clarion.convert import parse_size
    from clarion.convert import split as write

    max_bytes = parse_size(max_size)
    with bar("split") as progress:
        paths = write(source, out, max_bytes, progress)
    for path in paths:
        print(path)


@click.command()
@click.argument("source", metavar="PART", type=options.file_name)
@click.argument("out", metavar="OUT", type=options.file_name)
@options.debug
def merge(source: str, out: str) -> None:
    """Writes a split model, of which PART is any part, as one file."""
    from clarion.convert import merge as write

    with bar("merge") as progress:
        paths = write(source, out, progress)
    for path in paths:
        print(path)
