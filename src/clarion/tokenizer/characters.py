"""Character classes of Unicode 15.1, the version that the reference tokenizers split text by.

Token ids depend on the categories, so they come from a table (`scripts/make_unicode_classes.py`) and not from
the Unicode version of the running Python.
"""

from __future__ import annotations

import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path

from clarion.errors import TokenizerError

NUMBER, LETTER, PUNCTUATION, MARK, SYMBOL, CONTROL, UNASSIGNED = "\xd1\xd2\xd3\xd4\xd5\xd6\xd7"
ASCII_SPACES = " \t\n\v\f\r"
HAN_LETTER, HAN_UNASSIGNED = "\xd8\xd9"

_WHITE_SPACE = dict.fromkeys(
    [0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000], "\v"
)
# Ideographs and their compatibility forms: first and one past the last.
_HAN = (
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x2A6E0),
    (0x2A700, 0x2EBF0),
    (0x2F800, 0x2FA20),
)


@cache
def classes() -> str:
    """The class of every code point: ASCII itself, `\\v` for other white space, else one of those above."""
    return zlib.decompress(Path(__file__).with_name("classes.bin").read_bytes()).decode("latin-1")


@cache
def han_classes() -> str:
    """`classes` with Han characters apart from other letters."""
    table = classes()
    parts = []
    for (_, begin), (first, end) in pairwise(((0, 0), *_HAN)):
        parts.append(table[begin:first])
        parts.append(table[first:end].replace(LETTER, HAN_LETTER).replace(UNASSIGNED, HAN_UNASSIGNED))
    return "".join(parts) + table[_HAN[-1][1] :]


def collapse(text: str) -> str:
    """Each character replaced by its class; same length."""
    return text if text.isascii() else text.translate(classes())


def collapse_han(text: str) -> str:
    """`collapse` with Han characters apart from other letters."""
    return text if text.isascii() else text.translate(han_classes())


def blank(text: str) -> str:
    """White space beyond ASCII replaced by `\\v`, the rest kept; same length."""
    return text if text.isascii() else text.translate(_WHITE_SPACE)


def lower(character: str) -> str:
    """The simple lowercase mapping: one character to one."""
    return character if classes()[ord(character)] == UNASSIGNED else character.lower()[0]


def encode_utf8(text: str) -> bytes:
    """UTF-8 bytes.

    Raises:
        TokenizerError: the text holds half of a surrogate pair, which is no character.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is the lone surrogate U+{ord(text[error.start]):04X}"
        ) from None
