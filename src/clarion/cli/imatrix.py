"""`clarion imatrix`: which columns of its matrices a model uses most, measured on a text."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from clarion.cli import options
from clarion.cli.progress import counter


@click.command()
@click.argument("words", metavar="MODEL TEXT", nargs=-1, type=options.file_name)
@options.model
@click.option("-f", "--file", "text_path", metavar="FILE", type=options.file_name, help="The text, UTF-8.")
@click.option("-o", "--output", "out", metavar="FILE", required=True, help="The file to write, GGUF.")
@click.option(
    "-c", "--context", metavar="N", type=int, default=512, show_default=True, help="Tokens in a chunk."
)
@click.option("--chunks", metavar="N", type=int, help="Only the first so many chunks.")
@click.option("--process-output", is_flag=True, help="Also for the matrix that makes the logits.")
@click.option("--in-file", multiple=True, metavar="FILE", help="Add what these files hold; may be repeated.")
@options.activations
@options.isa
@options.threads
@options.as_json
@options.debug
def imatrix(
    words: tuple[str, ...],
    model_path: str | None,
    text_path: str | None,
    out: str,
    context: int,
    chunks: int | None,
    process_output: bool,
    in_file: tuple[str, ...],
    activations: str,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measures on TEXT which columns of MODEL's matrices matter, for `clarion quantize --imatrix`.

    The file is laid out as llama.cpp's llama-imatrix does, and either program reads the other's.
    """
    from clarion.cli.prompt import read_text
    from clarion.evaluate.chunks import beginning
    from clarion.evaluate.collect import collect
    from clarion.evaluate.imatrix import Imatrix
    from clarion.gguf import File
    from clarion.gguf.writable import check_writable
    from clarion.library import located
    from clarion.tokenizer import Tokenizer

    model, text = _model_and_text(words, model_path, text_path)
    check_writable(out, reads=(model, text))
    earlier = [Imatrix.read(path) for path in in_file]
    tokenizer = Tokenizer.from_gguf(model)
    with File.open(located(model)) as file, counter("imatrix") as progress:
        found = collect(
            file,
            tokenizer.encode(read_text(None, text)),
            dataset=text,
            bos=beginning(tokenizer),
            chunk=context,
            n_chunks=chunks,
            output=process_output,
            activations=activations,
            threads=threads,
            isa=isa,
            progress=progress,
        )
    unseen = sum(int((s.counts == 0).sum()) for s in found.statistics.values())
    for other in reversed(earlier):
        found = other + found
    found.write(out)
    figures = {
        "path": out,
        "matrices": len(found.statistics),
        "chunks": found.chunk_count,
        "chunk_size": found.chunk_size,
        "experts_without_tokens": unseen,
    }
    if as_json:
        print(json.dumps(figures))
        return
    print(f"{out}: {len(found.statistics)} matrices, {found.chunk_count} chunks of {found.chunk_size} tokens")
    if unseen:
        print(f"{unseen} experts' matrices met no token: they count as the mean of the others")


def _model_and_text(words: Sequence[str], model: str | None, text: str | None) -> tuple[str, str]:
    """Both names, each a word or given with its option."""
    left = list(words)
    found = [given if given is not None else left.pop(0) if left else None for given in (model, text)]
    if left:
        raise click.UsageError(f"Got unexpected extra argument ({left[0]})")
    for name, value in zip(("MODEL", "TEXT"), found, strict=True):
        if value is None:
            context = click.get_current_context()
            raise click.MissingParameter(ctx=context, param_hint=f"'{name}'", param_type="argument")
    return str(found[0]), str(found[1])
