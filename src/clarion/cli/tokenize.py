"""`clarion tokenize`: a text as the model sees it."""

from __future__ import annotations

import json

import click

from clarion.cli import options
from clarion.cli.sections import FILE, Command, option


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MODEL] [TEXT]", type=FILE)
@options.model
@option("-p", "--prompt", section="Text", metavar="TEXT", help="The text.")
@option("-f", "--file", section="Text", type=FILE, metavar="FILE", help="Read the text from a file.")
@option("--no-special", section="Text", is_flag=True, help="Without the tokens for beginning and end.")
@option(
    "--parse-special",
    section="Text",
    is_flag=True,
    help="Names of control tokens in the text stand for them.",
)
@options.as_json
@options.debug
def tokenize(
    words: tuple[str, ...],
    model_path: str | None,
    prompt: str | None,
    file: str | None,
    no_special: bool,
    parse_special: bool,
    as_json: bool,
) -> None:
    """Prints token ids and what each one stands for.

    The text stands on the command line, in a file (-f), or comes from standard input (-).
    """
    from clarion import Tokenizer
    from clarion.cli.prompt import check_names, check_utf8, model_and_prompt, read_text
    from clarion.cli.turn import warn_of_names
    from clarion.programs import open_file

    path, word = model_and_prompt(words, model_path, prompt, file)
    check_names(words, path, word, prompt, file)
    typed = prompt if word is None else word
    check_utf8("the text", typed or "")
    text = read_text(typed, file)
    with open_file(path) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
        if not parse_special:
            warn_of_names(tokenizer, text)
        ids = tokenizer.encode(text, add_special=not no_special, parse_special=parse_special)
        pieces = [_shown(tokenizer.piece(token)) for token in ids]
    if as_json:
        print(json.dumps({"ids": ids, "pieces": [p if isinstance(p, str) else list(p) for p in pieces]}))
        return
    for token, piece in zip(ids, pieces, strict=True):
        print(f"{token:>7}  {piece!r}")


def _shown(piece: bytes) -> str | bytes:
    """Text, or bytes where a token holds but a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece
