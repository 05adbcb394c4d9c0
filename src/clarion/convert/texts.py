"""The small files of a checkpoint as text and as JSON."""

from __future__ import annotations

import json as parse
from typing import Any

from clarion.convert.recognise import BOM, described
from clarion.convert.safetensors import parse_json
from clarion.errors import FormatError


def text(raw: bytes, where: str) -> str:
    """The text, without a byte order mark, every line ended with a newline alone.

    Raises:
        FormatError: not UTF-8, or a pointer or a page in the place of the text.
    """
    what = described(raw, any_text=True)
    if what is not None:
        raise FormatError(f"{where} {what}, expected its own text")
    try:
        found = raw.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        what = described(raw)
        raise FormatError(
            f"{where}: offset {error.start}: not UTF-8" if what is None else f"{where} {what}, expected UTF-8"
        ) from None
    return found.replace("\r\n", "\n").replace("\r", "\n")


def json(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object, a byte order mark before it or not.

    Raises:
        FormatError: anything else.
    """
    what = described(raw)
    if what is not None:
        raise FormatError(f"{where} {what}, expected JSON")
    return parse_json(raw.removeprefix(BOM), where)


def objects(raw: bytes, where: str) -> list[dict[str, Any]]:
    """The JSON objects of a list.

    Raises:
        FormatError: anything else.
    """
    try:
        found = parse.loads(text(raw, where))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise FormatError(f"{where}: found a JSON {type(found).__name__}, expected a list of objects")
    return found
