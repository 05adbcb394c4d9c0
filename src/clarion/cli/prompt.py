"""Which model and which prompt a command line means."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import BinaryIO

import click

from clarion.errors import FileError, ParameterError

# More than any context takes and any text to measure with has. What is larger is a mistake, or never ends.
MAX_TEXT_BYTES = 1 << 27


def model_and_prompt(
    words: Sequence[str], model: str | None, *others: str | None
) -> tuple[str | None, str | None]:
    """Splits `[MODEL] [PROMPT]`.

    One word is the model if it names a file or ends in .gguf, or if the prompt comes from elsewhere.

    Args:
        words: the positional arguments.
        model: what -m says.
        others: other sources of the prompt; at most one source may be given.
    """
    words = list(words)
    given = [other for other in others if other is not None]
    if model is None and words and (len(words) == 2 or given or _names_a_model(words[0])):
        model = words.pop(0)
    if len(words) + len(given) > 1:
        raise click.UsageError("the prompt is given more than once")
    return model, words[0] if words else None


def read_text(prompt: str | None, file: str | None) -> str:
    """The prompt's text: as given, from a file, or from standard input. A last newline is dropped."""
    if prompt is not None:
        if (found := re.search("[\udc80-\udcff]", prompt)) is not None:
            raise ParameterError(
                f"the prompt's character {found.start()} is the byte 0x{ord(found[0]) - 0xDC00:02x} "
                "(half a surrogate pair), expected UTF-8"
            )
        return prompt
    if file is not None:
        return _read_file(file)
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("no prompt: give PROMPT, -p, -f, or text on standard input")
    return _decode(sys.stdin.buffer, "standard input")


def read_ids(file: str) -> list[int]:
    """Token ids in a text file, separated by space or commas, in brackets or not."""
    text = _read_file(file).strip()
    words = re.split(r"[\s,]+", text.removeprefix("[").removesuffix("]").strip(" \t\r\n,"))
    try:
        return [int(word) for word in words if word]
    except ValueError:
        bad = next(word for word in words if not re.fullmatch(r"[+-]?\d+", word))
        raise ParameterError(f"{file}: found {bad[:40]!r}, expected token ids") from None


def _names_a_model(word: str) -> bool:
    return word.endswith(".gguf") or os.path.isfile(word)


def _read_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return _decode(file, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(stream: BinaryIO, source: str) -> str:
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ParameterError(
            f"{source}: found more than {MAX_TEXT_BYTES} bytes, expected a text to read as a whole"
            f"{_instead(data, source)}"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"{source}: found byte 0x{data[error.start]:02x} at offset {error.start}, expected UTF-8"
            f"{_instead(data, source)}"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def _instead(data: bytes, source: str) -> str:
    """What is given in the place of a text, where that is known."""
    from clarion.gguf.kinds import recognise_bytes, sentence

    kind = recognise_bytes(data, source)
    return "" if kind is None else f": {sentence(kind, 'a text')}"
