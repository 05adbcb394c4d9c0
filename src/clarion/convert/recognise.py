"""What a file is that should have been another, in a person's words."""

from __future__ import annotations

import re

from clarion.gguf.kinds import PAGE, POINTER, recognise_bytes

BOM = b"\xef\xbb\xbf"
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")


def described(raw: bytes, *, any_text: bool = False) -> str | None:
    """A predicate for bytes that stand in the place of a file; None where nothing is known of them.

    Args:
        any_text: the file may be any text, so that only what no one would write there is described.
    """
    kind = recognise_bytes(raw)
    if kind is None or not kind.stands_in or (any_text and kind.name not in (PAGE, POINTER)):
        return None
    return f"is {kind.name}" + (f": {kind.advice}" if kind.advice else "")


def is_tiktoken(raw: bytes) -> bool:
    """Whether the bytes are a vocabulary of tiktoken: lines of base64 and a rank."""
    return _TIKTOKEN.match(raw) is not None
