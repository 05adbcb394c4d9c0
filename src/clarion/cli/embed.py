"""`clarion embed` and `clarion rerank`: vectors of texts, and documents by how well they answer a query."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TypeVar, cast

import click

from clarion.cli import options
from clarion.cli.sections import FILE, Command, Names, option

POOLINGS = ("mean", "cls", "last")
F = TypeVar("F", bound=Callable[..., object])


def _shared(function: F) -> F:
    """What both commands take: the texts, and how they are computed."""
    return cast(
        F,
        options.together(
            options.model,
            option(
                "-f", "--file", section="Texts", type=FILE, metavar="FILE",
                help="Read the texts from a file, one on each line; - is standard input.",
            ),
            option("--truncate", section="Texts", is_flag=True, help="Cut texts that are too long."),
            option("-c", "--context", section="Model", metavar="N", type=int, help="Most tokens of a text."),
            options.activations,
            options.isa,
            options.threads,
            options.as_json,
            options.debug,
        )(function),
    )  # fmt: skip


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="MODEL [TEXT]...", type=FILE)
@option(
    "--pooling",
    section="Vectors",
    type=Names(POOLINGS),
    help="How one vector is made of a text's rows.  [default: as the file says]",
)
@option("--no-normalize", section="Vectors", is_flag=True, help="Leave the vectors' lengths as they are.")
@option("--dimensions", section="Vectors", metavar="N", type=int, help="Only the first so many elements.")
@option(
    "--prompt",
    section="Vectors",
    metavar="NAME",
    help="Put the file's text of that name before each text; '' puts none where the file has a usual one.",
)
@option("-o", "--output", "out", section="Output", metavar="FILE", help="Write an array of numpy, FILE.npy.")
@_shared
def embed(
    words: tuple[str, ...],
    model_path: str | None,
    file: str | None,
    truncate: bool,
    context: int | None,
    pooling: str | None,
    no_normalize: bool,
    dimensions: int | None,
    prompt: str | None,
    out: str | None,
    activations: str,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Prints the vector of each text, as a line of JSON.

    The texts stand on the command line, in a file (-f) or on standard input, one on each line.
    """
    from clarion import load
    from clarion.gguf.writable import check_writable
    from clarion.plan.output import Pooling

    path, texts = _model_and_texts(words, model_path, file, at_least=1, what="MODEL and texts")
    if out is not None:
        check_writable(out, reads=(path,))
    with load(path, context=context, activations=activations, isa=isa, threads=threads) as model:
        vectors = model.embed(
            texts,
            pooling=cast("Pooling | None", pooling),
            normalize=not no_normalize,
            dimensions=dimensions,
            prompt=prompt,
            truncate=truncate,
        )
    if out is not None:
        import numpy as np

        with open(out, "wb") as stream:
            np.save(stream, vectors)
    rows = [[round(float(x), 7) for x in row] for row in vectors]
    if as_json:
        print(json.dumps({"dimensions": vectors.shape[1], "embeddings": rows}))
    elif out is None:
        for row in rows:
            print(json.dumps(row))


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="MODEL QUERY [DOCUMENT]...", type=FILE)
@_shared
def rerank(
    words: tuple[str, ...],
    model_path: str | None,
    file: str | None,
    truncate: bool,
    context: int | None,
    activations: str,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Prints documents by how well they answer a query, the best first: score, number and text.

    The documents stand on the command line, in a file (-f) or on standard input, one on each line.
    """
    from clarion import load

    n = 1 if model_path is None else 0
    if len(words) <= n:
        raise click.UsageError("give MODEL, QUERY and documents")
    query, others = words[n], words[:n] + words[n + 1 :]
    path, documents = _model_and_texts(
        others, model_path, file, at_least=1, what="MODEL, QUERY and documents"
    )
    with load(path, context=context, activations=activations, isa=isa, threads=threads) as model:
        scores = model.rerank(query, documents, truncate=truncate)
    order = sorted(range(len(documents)), key=lambda i: -float(scores[i]))
    if as_json:
        print(json.dumps([{"index": i, "score": float(scores[i]), "document": documents[i]} for i in order]))
        return
    for i in order:
        print(f"{scores[i]:9.4f}  {i:>4}  {documents[i]}")


def _model_and_texts(
    words: tuple[str, ...], model: str | None, file: str | None, *, at_least: int, what: str
) -> tuple[str, list[str]]:
    """The model's path and the texts, of the command line or of a file's lines."""
    from clarion.cli.prompt import STANDARD_INPUT, check_utf8, read_text

    texts = list(words)
    if model is None:
        if not texts:
            raise click.UsageError(f"give {what}")
        model = texts.pop(0)
    if file is not None and texts:
        raise click.UsageError("the texts are given more than once: on the command line and with -f")
    if not texts:
        if file is None and (sys.stdin is None or sys.stdin.isatty()):
            raise click.UsageError(f"give {what}, or -f FILE, or texts on standard input")
        lines = read_text(None, file or STANDARD_INPUT).split("\n")
        texts = [line for line in (line.removesuffix("\r") for line in lines) if line]
    for text in texts:
        check_utf8("a text", text)
    if len(texts) < at_least:
        raise click.UsageError(f"no texts: give {what}")
    return model, texts
