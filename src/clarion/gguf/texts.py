"""Sizes and names of files as people read them."""

from __future__ import annotations

import os
from pathlib import Path

from clarion.errors import ParameterError

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def as_path(path: object) -> Path:
    """The path that a caller gave.

    Raises:
        ParameterError: it is no name of a file.
    """
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        raise ParameterError(f"path: found {path!r:.80}, expected the name of a file") from None
    if not name or "\0" in name:
        raise ParameterError(f"path: found {name!r:.80}, expected the name of a file")
    return Path(name)


def size_text(n_bytes: int) -> str:
    """In powers of 1000, as 98.4 MB."""
    return f"{_number(n_bytes, _power(n_bytes))} {_UNITS[_power(n_bytes)]}"


def part_text(n_bytes: int, of: int) -> str:
    """How much of a whole is there, as 2.1 of 4.9 GB; never rounded to all of it."""
    power = _power(of)
    part, whole = _number(n_bytes, power), _number(of, power)
    if part == whole and n_bytes != of:
        return f"{n_bytes:,} of {of:,} bytes"
    return f"{part} of {whole} {_UNITS[power]}"


def _power(n_bytes: int) -> int:
    power = 0
    while power + 1 < len(_UNITS) and n_bytes >= 1000 ** (power + 1):
        power += 1
    return power


def _number(n_bytes: int, power: int) -> str:
    return f"{n_bytes:,}" if power == 0 else f"{n_bytes / 1000**power:.1f}"


def name_text(name: str | os.PathLike[str]) -> str:
    """A file's name as a text that can be stored: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
