r"""What a person types, as messages: one line, lines that end in \, or a text in \"\"\" ... \"\"\"."""

from __future__ import annotations

_QUOTES = '"""'


def goes_on(text: str) -> bool:
    r"""Whether a message has more lines: it ends in \, or its quotes are still open."""
    begun = text.lstrip()
    if begun.startswith(_QUOTES):
        return _QUOTES not in begun[len(_QUOTES) :]
    return text.endswith("\\")


def next_line(text: str) -> str:
    r"""The text that the next line is put behind: a \ at the end was for the newline."""
    return (text[:-1] if text.endswith("\\") and not text.lstrip().startswith(_QUOTES) else text) + "\n"


def message(text: str) -> str:
    """The message itself: without the quotes around it, and the newlines beside these."""
    begun = text.strip()
    if not begun.startswith(_QUOTES) or not begun.endswith(_QUOTES) or len(begun) < 2 * len(_QUOTES):
        return text
    return begun[len(_QUOTES) : -len(_QUOTES)].removeprefix("\n").removesuffix("\n")
