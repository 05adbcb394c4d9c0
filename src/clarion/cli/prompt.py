"""Which model and which prompt a command line means."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click

from clarion.cli.words import names_a_model
from clarion.errors import FileError, NameNotFoundError, ParameterError

# More than any context takes and any text to measure with has. What is larger is a mistake, or never ends.
MAX_TEXT_BYTES = 1 << 27
STANDARD_INPUT = "-"
_NPY = b"\x93NUMPY"
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


def model_and_prompt(
    words: Sequence[str], model: str | None, *others: str | None
) -> tuple[str | None, str | None]:
    """Splits `[MODEL] [PROMPT]`.

    One word is the model if it names a file or a model on this machine or ends in .gguf, or if the prompt
    comes from elsewhere.

    Args:
        words: the positional arguments.
        model: what -m says.
        others: other sources of the prompt; at most one source may be given.
    """
    words = list(words)
    given = [other for other in others if other is not None]
    if model is None and words and (len(words) == 2 or given or names_a_model(words[0])):
        model = words.pop(0)
    if model is not None and given and words and names_a_model(words[0]):
        raise click.UsageError(f"the model is given more than once: {model} and {words[0]}")
    if len(words) + len(given) > 1:
        raise click.UsageError(
            "the prompt is given more than once; one of several words stands in quotes, as in "
            'clarion run "Once upon a time"'
        )
    return model, words[0] if words else None


def check_names(words: Sequence[str], model: str | None, prompt: str | None, *others: str | None) -> None:
    """Refuses words that are not meant as what they would be taken for, before anything is read.

    Args:
        words: the positional arguments, of which `model_and_prompt` made `model` and `prompt`.
        others: other sources of the prompt.
    """
    from clarion.library import find
    from clarion.names import looks_like_a_model, missing

    if prompt is not None and model is None and prompt != STANDARD_INPUT:
        if os.path.isdir(prompt):
            from clarion.gguf.kinds import instead

            reason = instead(Path(prompt), "a model") or "this is a folder, not a model"
            raise FileError(f"{prompt}: {reason}; if it is the prompt: -p {prompt}")
        if looks_like_a_model(prompt):
            raise FileError(f"{prompt}: {missing(prompt)}; if it is the prompt: -p {prompt}")
    if model is not None and not os.path.lexists(model):
        try:
            find(model)
        except NameNotFoundError as error:
            if missing(model) != "no such file" or len(words) != 2 or looks_like_a_model(model):
                raise
            raise FileError(f"{error}; a prompt of several words stands in quotes") from None
    if model is not None and list(words) == [model] and not any(other is not None for other in others):
        from clarion.gguf.kinds import recognise, sentence

        # Before somebody is asked for a prompt. A text may be meant as one.
        kind = recognise(model)
        if kind is not None and kind.name != "a GGUF file":
            hint = f"; if it holds the prompt: -f {model}" if kind.name.startswith("a text") else ""
            raise FileError(f"{model}: {sentence(kind, 'a model')}{hint}")


def check_utf8(source: str, text: str) -> None:
    """Raises ParameterError for a typed text with bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = len(text[: error.start].encode())
        code = ord(text[error.start])
        found = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        raise ParameterError(f"{source}: found {found} at offset {at}, expected UTF-8") from None


def read_text(prompt: str | None, file: str | None) -> str:
    """The prompt's text: as given, from a file, or from standard input. A last newline is dropped.

    `-` in the place of either is standard input.
    """
    if prompt is not None and prompt != STANDARD_INPUT:
        return prompt
    if file is not None and file != STANDARD_INPUT:
        return _decode(_read_file(file), file)
    asked = STANDARD_INPUT in (prompt, file)
    if sys.stdin is None or (sys.stdin.isatty() and not asked):
        raise click.UsageError(
            "no prompt: give PROMPT, -p, -f, or text on standard input; "
            "clarion chat MODEL is for conversations"
        )
    return _decode(_read_input(), "standard input")


def read_lines(file: str) -> list[str]:
    """The lines of a file, or of standard input (`-`), which are texts: an empty line is the empty text. The
    last newline ends the last line, and begins none."""
    data, source = (_read_input(), "standard input") if file == STANDARD_INPUT else (_read_file(file), file)
    lines = _whole(data, source).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_ids(file: str) -> list[int]:
    """Token ids in a file: numbers of text, separated by space or commas, in brackets or not; an array of
    numpy (.npy); or 32-bit integers, the low byte first. The content says which. `-` is standard input."""
    if file == STANDARD_INPUT:
        data, source = _read_input(), "standard input"
    else:
        data, source = _read_file(file), file
    if data.startswith(_NPY):
        return _array(data, source)
    if b"\0" in data:  # of the small numbers that ids are, the high byte is always 0; no text has one
        return _integers(data, source)
    text = _decode(data, source).strip()
    words = re.split(r"[\s,]+", text.removeprefix("[").removesuffix("]").strip(" \t\r\n,"))
    try:
        return [int(word) for word in words if word]
    except ValueError:
        bad = next(word for word in words if not re.fullmatch(r"[+-]?\d+", word))
        raise ParameterError(f"{source}: found {bad[:40]!r}, expected token ids") from None


def unescape(text: str) -> str:
    r"""The text with \n, \r, \t, \', \", \\ and \xHH as what they stand for. Others stay as they are.

    \xHH are bytes: several of them may be a character.
    """

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name[0] == "x" and len(name) == 3:
            return chr(0xDC00 + int(name[1:], 16)) if int(name[1:], 16) > 0x7F else chr(int(name[1:], 16))
        return _ESCAPED.get(name, found[0])

    data = _ESCAPE.sub(replace, text).encode(errors="surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"the escaped bytes of {text[:40]!r}: found 0x{data[error.start]:02x}, expected UTF-8"
        ) from None


def _integers(data: bytes, source: str) -> list[int]:
    import numpy as np

    if len(data) % 4:
        raise ParameterError(f"{source}: found {len(data)} bytes, expected 4 for each token id")
    values = np.frombuffer(data, "<i4")
    if len(values) > 3 and len(values) % 2 == 0 and not values[1::2].any() and values[::2].any():
        raise ParameterError(f"{source}: found 64-bit integers, expected 32-bit ones, or a .npy file")
    ids: list[int] = values.tolist()
    return ids


def _array(data: bytes, source: str) -> list[int]:
    import io

    import numpy as np

    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ParameterError(f"{source}: not a whole .npy array: {error}") from None
    if array.dtype.kind not in "iu" or array.ndim > 2 or (array.ndim == 2 and len(array) != 1):
        shape = list(array.shape)
        raise ParameterError(f"{source}: found {array.dtype} {shape}, expected integers in one row")
    ids: list[int] = array.reshape(-1).tolist()
    return ids


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _read(file, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def _read_input() -> bytes:
    if sys.stdin is None:
        raise FileError("standard input: it is closed")
    if sys.stdin.isatty() and sys.stderr.isatty():
        print("clarion: reading from the terminal; Ctrl-D ends the text", file=sys.stderr)
    return _read(sys.stdin.buffer, "standard input")


def _read(stream: BinaryIO, source: str) -> bytes:
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ParameterError(
            f"{source}: found more than {MAX_TEXT_BYTES} bytes, expected a text to read as a whole"
            f"{_instead(data, source)}"
        )
    return data


def _decode(data: bytes, source: str) -> str:
    return _whole(data, source).removesuffix("\n").removesuffix("\r")


def _whole(data: bytes, source: str) -> str:
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"{source}: found byte 0x{data[error.start]:02x} at offset {error.start}, expected UTF-8"
            f"{_instead(data, source)}"
        ) from None


def _instead(data: bytes, source: str) -> str:
    """What is given in the place of a text, where that is known."""
    from clarion.gguf.kinds import recognise_bytes, sentence

    kind = recognise_bytes(data, source)
    return "" if kind is None else f": {sentence(kind, 'a text')}"
