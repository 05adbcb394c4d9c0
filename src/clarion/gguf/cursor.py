"""Bounds-checked reads of the little-endian values of a GGUF file, one after the other."""

from __future__ import annotations

import struct
from pathlib import Path

from clarion.errors import FormatError

ZEROS = 4096  # bytes in a row that no header has
MOST_AT_ONCE = 1 << 26  # bytes: no field of a header that anybody wrote is longer

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


def format_error(path: Path, offset: int, field: str, found: object, allowed: object) -> FormatError:
    """The one form in which a broken file is reported."""
    return FormatError(f"{path}: offset {offset}: {field} is {found}, allowed: {allowed}")


class Cursor:
    """A place in a file. Every read names the field that it wants, for the error message.

    Attributes:
        ended: a read failed for the file's end alone: what it wanted is there in other files.
        unwritten: a read failed for nothing but zeros where a name should be, as in a file that room was
            made for before its bytes came.
    """

    __slots__ = ("data", "ended", "offset", "path", "size", "unwritten")

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.offset = 0
        self.ended = False
        self.unwritten = False

    def take(self, n_bytes: int, field: str) -> int:
        """Moves over `n_bytes` and returns where they begin."""
        begin = self.offset
        if n_bytes > self.size - begin:
            self.ended = n_bytes <= MOST_AT_ONCE
            raise format_error(
                self.path,
                begin,
                field,
                f"{n_bytes} bytes long",
                f"at most the {self.size - begin} bytes before the file ends",
            )
        self.offset = begin + n_bytes
        return begin

    def u32(self, field: str) -> int:
        value: int = _U32.unpack_from(self.data, self.take(4, field))[0]
        return value

    def u64(self, field: str) -> int:
        value: int = _U64.unpack_from(self.data, self.take(8, field))[0]
        return value

    def count(self, field: str, most: int, least_bytes: int) -> int:
        """A u64 that counts things of at least `least_bytes` bytes each, all of them still to come."""
        begin = self.offset
        value = self.u64(field)
        allowed = min(most, (self.size - self.offset) // least_bytes)
        if value > allowed:
            self.ended = value <= most
            raise format_error(self.path, begin, field, value, f"at most {allowed}")
        return value

    def string(self, field: str, most: int) -> str:
        """A string of 1 to `most` bytes of UTF-8."""
        begin = self.offset
        length = self.u64(f"length of {field}")
        if not 1 <= length <= most:
            rest = self.data[begin : begin + ZEROS]
            self.unwritten = len(rest) == ZEROS and not any(rest)
            raise format_error(self.path, begin, f"length of {field}", length, f"1 to {most} bytes")
        start = self.take(length, field)
        return decode(self.path, start, field, self.data[start : start + length])


def decode(path: Path, offset: int, field: str, raw: bytes | memoryview) -> str:
    """The text of a string that lies at `offset`.

    Raises:
        FormatError: it is no valid UTF-8.
    """
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 ({error.object[error.start]:#04x})"
        raise format_error(path, offset + error.start, field, found, "UTF-8") from None
