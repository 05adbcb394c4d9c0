"""A saved state: one file with the tokens of a sequence, and the bytes of each kind of state.

    "CLARSTAT"  u32 version  u32 bytes of the header
    header      JSON: {"tokens": n, "states": what the bytes mean, "byteorder": "little", "kinds": [...]}
    tokens      n times i32
    kinds       the bytes of each kind, in the order of the header
    u32         CRC-32 of everything before

A file is written under another name and then takes its place, so it is there as a whole or not at all. How
long it has to be follows from the header, and is checked before anything else is read.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, BinaryIO, Self

from clarion.errors import ContextError, FileError, FormatError, ParameterError
from clarion.gguf.texts import as_path
from clarion.gguf.writable import write_beside
from clarion.runtime.states.layout import Layout

MAGIC = b"CLARSTAT"
VERSION = 1
_START = struct.Struct("<8sII")
_END = struct.Struct("<I")
_MOST_HEADER_BYTES = 1 << 20
_BYTES_SENT = 4 << 20  # so many bytes are sent to the disk at once

Fingerprint = dict[str, str | int]


def write(
    path: str | os.PathLike[str],
    tokens: Sequence[int],
    layout: Layout,
    chunks: Iterable[bytes | memoryview],
    go_on: Callable[[], None],
) -> int:
    """Writes a state in place of what the path held before, and returns how many bytes it has.

    `go_on` is called before each chunk, and when all are written: by an error it ends the work.

    Raises:
        FileError: the file cannot be written; what the path held before is untouched.
        ParameterError: `path` is no name of a file.
    """
    header = json.dumps(_header(len(tokens), layout.meaning, layout.fingerprints)).encode()
    n_bytes = 0

    def write_all(file: BinaryIO) -> None:
        nonlocal n_bytes
        crc = 0
        n_sent = 0
        start = _START.pack(MAGIC, VERSION, len(header))
        for chunk in chain((start, header, array("i", tokens).tobytes()), chunks):
            go_on()
            file.write(chunk)
            crc = zlib.crc32(chunk, crc)
            if file.tell() - n_sent >= _BYTES_SENT:
                n_sent = _send(file, n_sent)
        file.write(_END.pack(crc))
        n_bytes = file.tell()
        file.flush()
        os.fsync(file.fileno())
        go_on()

    write_beside(as_path(path), write_all)
    return n_bytes


def _send(file: BinaryIO, begin: int) -> int:
    """Lets the disk begin with what was written from there on, beside the sums of what follows, and returns
    where that ends.

    Linux begins to write whatever a program says that it does not need in memory.
    """
    file.flush()
    end = file.tell()
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)
    return end


class SavedState:
    """A file that is being read, from its beginning to its end."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads and checks the header.

        Raises:
            FileError: the file cannot be read.
            ParameterError: `path` is no name of a file.
            FormatError: it is no saved state, or of another version, or cut.
        """
        self.path = as_path(path)
        self._crc = 0
        try:
            self._file = open(self.path, "rb")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise self._cannot_be_read(error) from error
        try:
            self.n_tokens, self._meaning, self._kinds = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def check(self, layout: Layout, context: int) -> None:
        """Whether the file holds states of this layout, of no more tokens than the context.

        Raises:
            ContextError: it has more tokens.
            ParameterError: the file was written for another model, or with other formats.
            FormatError: the file is cut, or has bytes behind its end.
        """
        if self.n_tokens > context:
            raise ContextError(f"{self.path}: found {self.n_tokens} tokens, the context is {context}")
        expected = _header(self.n_tokens, layout.meaning, layout.fingerprints)
        found = _header(self.n_tokens, self._meaning, self._kinds) | {"byteorder": self._byteorder}
        for key, value in expected.items():
            if found[key] != value:
                raise ParameterError(
                    f"{self.path}: a state of another program: "
                    f"{key}: found {found[key]!r}, expected {value!r}"
                )
        whole = self._file.tell() + 4 * self.n_tokens + layout.saved_bytes(self.n_tokens) + _END.size
        size = os.fstat(self._file.fileno()).st_size
        if size != whole:
            raise FormatError(f"{self.path}: found {size} bytes, expected {whole}")

    def tokens(self) -> list[int]:
        """The tokens, which follow the header."""
        tokens = array("i", bytes(4 * self.n_tokens))
        if self.n_tokens:
            self.read(memoryview(tokens).cast("B"))
        if any(token < 0 for token in tokens):
            raise FormatError(f"{self.path}: token: found {min(tokens)}, expected at least 0")
        return tokens.tolist()

    def read(self, into: memoryview) -> None:
        """Fills a block of memory with what follows."""
        done = 0
        while done < len(into):
            try:
                n = self._file.readinto(into[done:])
            except OSError as error:
                raise self._cannot_be_read(error) from error
            if n == 0:
                raise self._is_cut()
            done += n
        self._crc = zlib.crc32(into, self._crc)

    def finish(self) -> None:
        """Checks the sum at the end. FormatError if any byte has changed."""
        expected = self._crc
        end = bytearray(_END.size)
        self.read(memoryview(end))
        (found,) = _END.unpack(end)
        if found != expected:
            raise FormatError(f"{self.path}: CRC-32: found {found:#010x}, expected {expected:#010x}")

    def _read_header(self) -> tuple[int, str, list[Fingerprint]]:
        start = bytearray(_START.size)
        self.read(memoryview(start))
        magic, version, n_bytes = _START.unpack(start)
        if magic != MAGIC:
            raise FormatError(f"{self.path}: no saved state: found {magic!r}, expected {MAGIC!r}")
        if version != VERSION:
            raise FormatError(f"{self.path}: version: found {version}, expected {VERSION}")
        if n_bytes > _MOST_HEADER_BYTES:
            raise FormatError(
                f"{self.path}: header: found {n_bytes} bytes, expected at most {_MOST_HEADER_BYTES}"
            )
        text = bytearray(n_bytes)
        self.read(memoryview(text))
        try:
            header: Any = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.path}: header: no JSON: {error}") from error
        match header:
            case {
                "tokens": int(tokens),
                "states": str(meaning),
                "byteorder": str(byteorder),
                "kinds": list(kinds),
            } if not isinstance(tokens, bool) and tokens >= 0:
                self._byteorder = byteorder
                return tokens, meaning, kinds
        raise FormatError(
            f"{self.path}: header: found {text.decode()[:200]!r}, expected tokens, states, kinds"
        )

    def _cannot_be_read(self, error: OSError) -> FileError:
        return FileError(f"{self.path}: cannot be read: {error.strerror or error}")

    def _is_cut(self) -> FormatError:
        size = os.fstat(self._file.fileno()).st_size
        return FormatError(f"{self.path}: no saved state, or cut: it ends after {size} bytes")


def _header(n_tokens: int, meaning: str, kinds: Sequence[Fingerprint]) -> dict[str, Any]:
    return {"tokens": n_tokens, "states": meaning, "byteorder": sys.byteorder, "kinds": list(kinds)}
