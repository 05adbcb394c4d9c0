"""`clarion tokenize`: a text as the model sees it."""

from __future__ import annotations

import json

import click

from clarion.cli import options


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL] [TEXT]")
@options.model
@click.option("-p", "--prompt", metavar="TEXT", help="The text.")
@click.option("-f", "--file", metavar="FILE", help="Read the text from a file.")
@click.option("--no-special", is_flag=True, help="Without the tokens for beginning and end.")
@click.option("--parse-special", is_flag=True, help="Names of control tokens in the text stand for them.")
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
    """Prints token ids and what each one stands for."""
    from clarion import Tokenizer
    from clarion.cli.prompt import model_and_prompt, read_text
    from clarion.model import open_file

    path, word = model_and_prompt(words, model_path, prompt, file)
    text = read_text(prompt if word is None else word, file)
    with open_file(path) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
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
