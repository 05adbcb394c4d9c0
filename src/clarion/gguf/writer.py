"""Writes a GGUF file (version 3): all of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np

from clarion.errors import ClosedError, FileError, ParameterError
from clarion.gguf.encode import encode_pair, encode_text
from clarion.gguf.formats import Format, format_named
from clarion.gguf.metadata import MAX_PAIRS
from clarion.gguf.part import (
    ALIGNMENTS,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    padded,
)

Chunk: TypeAlias = bytes | bytearray | memoryview | np.ndarray[Any, Any]
_VERSION = 3


@dataclass(frozen=True, slots=True)
class _Pending:
    name: str
    shape: tuple[int, ...]
    format: Format
    data: Chunk | Iterable[Chunk]
    offset: int  # from the first tensor's byte

    @property
    def n_bytes(self) -> int:
        return self.format.n_bytes(self.shape)


class Writer:
    """Collects tensors and writes the file when its `with` block ends without an error.

    The bytes go to a temporary file beside `path`, which replaces `path` when all of them are on the disk; if
    anything fails before, it is removed and `path` is as it was. A tensor's bytes may be an iterable of
    chunks, made only while they are written, so that a model never lies in memory as a whole.

    `metadata` maps keys to values as `encode_pair` takes them; `File.metadata.exact()` is such a mapping.

    Raises:
        ParameterError: a key, value, name, shape or the number of bytes of a tensor does not fit the format.
        FileError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any],
        alignment: int = DEFAULT_ALIGNMENT,
    ) -> None:
        if alignment not in ALIGNMENTS:
            allowed = f"a power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}"
            raise ParameterError(f"alignment is {alignment}, allowed: {allowed}")
        if len(metadata) >= MAX_PAIRS:
            raise ParameterError(
                f"number of metadata pairs is {len(metadata)}, allowed: less than {MAX_PAIRS}"
            )
        self.path = Path(path)
        self.alignment = alignment
        pairs = {key: value for key, value in metadata.items() if key != "general.alignment"}
        stated = metadata.get("general.alignment", alignment)
        if np.ndim(stated) or stated != alignment:
            raise ParameterError(
                f"metadata 'general.alignment' is {stated}, but the file is aligned to {alignment}"
            )
        if alignment != DEFAULT_ALIGNMENT:
            pairs["general.alignment"] = np.uint32(alignment)
        self._pairs = [encode_pair(key, value) for key, value in pairs.items()]
        self._tensors: dict[str, _Pending] = {}
        self._end = 0
        self._closed = False

    def add(
        self,
        name: str,
        shape: Sequence[int],
        format: Format | str,
        data: Chunk | Iterable[Chunk],
    ) -> None:
        """Adds a tensor: `shape` is row-major, `data` its bytes in `format`, as one buffer or in chunks."""
        if isinstance(format, str):
            format = format_named(format)
        _check_tensor(name, shape, format)
        if name in self._tensors:
            raise ParameterError(f"tensor {name!r} was added already")
        if len(self._tensors) == MAX_TENSORS:
            raise ParameterError(f"tensor {name!r} is one too many, allowed: {MAX_TENSORS}")
        tensor = _Pending(name, tuple(shape), format, data, self._end)
        self._tensors[name] = tensor
        self._end = padded(self._end + tensor.n_bytes, self.alignment)

    @property
    def n_bytes(self) -> int:
        """Of the file that `close` writes."""
        header = len(MAGIC) + struct.calcsize("<IQQ") + sum(map(len, self._pairs))
        table = sum(len(_table_row(tensor)) for tensor in self._tensors.values())
        return padded(header + table, self.alignment) + self._end

    def close(self) -> None:
        """Writes the file."""
        if self._closed:
            raise ClosedError(f"{self.path}: the writer is closed")
        self._closed = True
        temporary = self.path.with_name(f".{os.urandom(8).hex()}.gguf.partial")
        try:
            with _removed_on_error(temporary):
                with open(temporary, "xb") as file:
                    self._write(file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
                _sync_folder(self.path.parent)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()

    def _write(self, file: BinaryIO) -> None:
        file.write(MAGIC + struct.pack("<IQQ", _VERSION, len(self._tensors), len(self._pairs)))
        file.writelines(self._pairs)
        for tensor in self._tensors.values():
            file.write(_table_row(tensor))
        _pad(file, self.alignment)
        for tensor in self._tensors.values():
            n_bytes = 0
            for chunk in _chunks(tensor.data):
                n_bytes += file.write(chunk)
            if n_bytes != tensor.n_bytes:
                raise ParameterError(
                    f"tensor {tensor.name!r} came with {n_bytes} bytes, expected {tensor.n_bytes} "
                    f"for {list(tensor.shape)} {tensor.format.name}"
                )
            _pad(file, self.alignment)


def _check_tensor(name: str, shape: Sequence[int], format: Format) -> None:
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise ParameterError(f"tensor {name!r} has {len(shape)} dimensions, allowed: 1 to {MAX_DIMENSIONS}")
    elements = 1
    for size in shape:
        elements *= max(size, 1)
    if min(shape) < 0 or elements > MAX_ELEMENTS:
        raise ParameterError(f"tensor {name!r} has shape {list(shape)}, allowed: 0 to 2^63-1 elements")
    if shape[-1] % format.block_size:
        allowed = f"a multiple of {format.block_size} for {format.name}"
        raise ParameterError(f"tensor {name!r} has rows of {shape[-1]}, allowed: {allowed}")
    encode_text(name, f"tensor name {name!r}", MAX_NAME_BYTES)


def _table_row(tensor: _Pending) -> bytes:
    name = encode_text(tensor.name, "tensor name", MAX_NAME_BYTES)
    n = len(tensor.shape)
    return name + struct.pack(f"<I{n}QIQ", n, *reversed(tensor.shape), tensor.format.type_id, tensor.offset)


def _chunks(data: Chunk | Iterable[Chunk]) -> Iterator[memoryview]:
    if isinstance(data, bytes | bytearray | memoryview | np.ndarray):
        data = (data,)
    for chunk in data:
        if isinstance(chunk, np.ndarray):
            yield np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
        else:
            yield memoryview(chunk).cast("B")


def _pad(file: BinaryIO, alignment: int) -> None:
    at = file.tell()
    file.write(bytes(padded(at, alignment) - at))


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
