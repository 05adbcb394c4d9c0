"""`clarion embed` and `clarion rerank`: vectors of texts, and documents by how well they answer a query."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from clarion.cli import options
from clarion.cli.sections import FILE, Command, Names, option

STANDARD_INPUT = "-"
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
                help="Read the texts from a file, each of its lines one; - is standard input.",
            ),
            option("-p", "--text", "typed", section="Texts", metavar="TEXT", multiple=True,
                   help="A text; may be repeated."),
            option("--truncate", section="Texts", is_flag=True, help="Cut texts that are too long."),
            option("-c", "--context", section="Model", metavar="N", type=int, help="Most tokens of a text."),
            options.activations,
            option(
                "-b", "--batch", section="Speed", type=int, default=256, show_default=True,
                help="Tokens computed at once, where texts are not longer.",
            ),
            options.isa,
            options.weights,
            options.threads,
            options.as_json,
            options.debug,
        )(function),
    )  # fmt: skip


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MODEL] [TEXT]...", type=FILE)
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
@option(
    "-o",
    "--output",
    "out",
    section="Output",
    metavar="FILE",
    help="Write an array of numpy to the file of exactly this name.",
)
@_shared
def embed(
    words: tuple[str, ...],
    model_path: str | None,
    file: str | None,
    typed: tuple[str, ...],
    pooling: str | None,
    no_normalize: bool,
    dimensions: int | None,
    prompt: str | None,
    truncate: bool,
    out: str | None,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Prints the vector of each text, as a line of JSON.

    The texts stand on the command line, or are the lines of a file (-f) or of standard input (-); an empty
    line is the empty text. Without MODEL, the model that comes with Clarion makes the vectors.
    """
    from clarion import load
    from clarion.gguf.writable import check_writable, write_beside
    from clarion.plan.output import Pooling

    if pooling == "rank":
        raise click.UsageError("--pooling rank: clarion rerank MODEL QUERY DOCUMENT... gives scores")
    if pooling == "none":
        raise click.UsageError("--pooling none: a text has one vector; its rows are not printed")
    path, texts = _model_and_texts(words, model_path, file)
    texts = _texts([*texts, *typed], file, "texts")
    if out == STANDARD_INPUT:
        raise click.UsageError("-o -: an array goes to a file; without -o, vectors go to standard output")
    if out is not None:
        check_writable(out, reads=[name for name in (path, file) if name is not None])
    with load(path, **of_model) as model:
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

        write_beside(out, lambda stream: np.save(stream, vectors))
    if out is not None and not as_json:
        return
    rows = [[round(float(x), 7) for x in row] for row in vectors]
    if as_json:
        print(json.dumps({"dimensions": vectors.shape[1], "embeddings": rows}))
    else:
        for row in rows:
            print(json.dumps(row))


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="MODEL QUERY [DOCUMENT]...", type=FILE)
@_shared
def rerank(
    words: tuple[str, ...],
    model_path: str | None,
    file: str | None,
    typed: tuple[str, ...],
    truncate: bool,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Prints documents by how well they answer a query, the best first: score, number and text.

    The documents stand on the command line, or are the lines of a file (-f) or of standard input (-); an
    empty line is an empty document. Numbers count from 0.
    """
    from clarion import load
    from clarion.cli.prompt import check_utf8

    left = list(words)
    path = left.pop(0) if model_path is None and left else model_path
    if path is None or not left:
        raise click.UsageError("give MODEL, QUERY and documents")
    query = left.pop(0)
    check_utf8("the query", query)
    documents = _texts([*left, *typed], file, "documents")
    with load(path, **of_model) as model:
        scores = model.rerank(query, documents, truncate=truncate)
    order = sorted(range(len(documents)), key=lambda i: -float(scores[i]))
    if as_json:
        print(json.dumps([{"index": i, "score": float(scores[i]), "document": documents[i]} for i in order]))
        return
    for i in order:
        print(f"{scores[i]:9.4f}  {i:>4}  {options.printable(documents[i])}")


def _model_and_texts(
    words: tuple[str, ...], model: str | None, file: str | None
) -> tuple[str | None, list[str]]:
    """The model's path, None for the one that comes with Clarion, and the texts of `[MODEL] [TEXT]...`."""
    from clarion.cli.words import names_a_model
    from clarion.errors import FileError
    from clarion.names import looks_like_a_model, missing

    texts = list(words)
    if model is None and texts and texts[0] != STANDARD_INPUT:
        if names_a_model(texts[0]) or (file is not None and len(texts) == 1):
            return texts[0], texts[1:]
        if looks_like_a_model(texts[0]):
            raise FileError(f"{texts[0]}: {missing(texts[0])}; if it is a text: -p {texts[0]}")
    return model, texts


def _texts(given: list[str], file: str | None, what: str) -> list[str]:
    """The texts of the command line, or the lines of a file."""
    from clarion.cli.prompt import check_utf8, read_lines

    if given == [STANDARD_INPUT] and file is None:
        given, file = [], STANDARD_INPUT
    if file is not None and given:
        raise click.UsageError(f"the {what} are given more than once: on the command line and with -f")
    if not given:
        if file is None and (sys.stdin is None or sys.stdin.isatty()):
            raise click.UsageError(f"no {what}: give them as words, or -f FILE, or on standard input")
        given = read_lines(file or STANDARD_INPUT)
    for text in given:
        check_utf8("a text", text)
    if not given:
        raise click.UsageError(f"no {what}: there is no line")
    return given
