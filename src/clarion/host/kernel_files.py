"""What the kernel says of the machine in small files. What is missing or makes no sense reads as None."""

from __future__ import annotations

from pathlib import Path

_MOST_CHARACTERS = 1 << 16
_MOST_PROCESSORS = 1 << 16
_LARGEST = 1 << 60
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def text(path: Path) -> str | None:
    """The file's text, without white space around it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_CHARACTERS).strip()
    except OSError:
        return None


def integer(path: Path) -> int | None:
    """A number that is not negative."""
    return number(text(path) or "")


def size(path: Path) -> int | None:
    """Bytes: "32K", "1M", "4096"."""
    found = text(path) or ""
    unit = _UNITS.get(found[-1:].upper(), 0)
    count = number(found[:-1] if unit else found)
    return None if count is None else count * (unit or 1)


def processors(path: Path) -> frozenset[int] | None:
    """The numbers of a list like "0-3,8,10-11"; None also for an empty one."""
    found: set[int] = set()
    for part in (text(path) or "").split(","):
        first, _, last = part.partition("-")
        low, high = number(first), number(last or first)
        if low is None or high is None or high >= _MOST_PROCESSORS:
            return None
        found.update(range(low, high + 1))
    return frozenset(found) or None


def number(digits: str) -> int | None:
    """Decimal digits; None for anything else, and for more of them than a size has."""
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return None
    return min(int(digits), _LARGEST)
