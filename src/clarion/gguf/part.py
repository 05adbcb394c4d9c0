"""One GGUF file: header, metadata, tensor table. Versions 2 and 3, little-endian.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version u32, number of tensors u64,
number of metadata pairs u64, the pairs, the tensor table, padding to the alignment, the tensors' bytes.
Python's integers do not wrap, so every sum and product below is exact.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarion._native import files
from clarion.errors import FileError, FormatError, UnsupportedError
from clarion.gguf.cursor import Cursor, format_error
from clarion.gguf.formats import Format, format_of
from clarion.gguf.metadata import LEAST_PAIR_BYTES, MAX_PAIRS, Metadata, read_metadata
from clarion.gguf.texts import part_text, size_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENTS = tuple(1 << bit for bit in range(3, 21))
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 64
MAX_TENSORS = 65_536  # real files have some thousand; this many are read in about half a second
MAX_ELEMENTS = 2**63 - 1  # what numpy and the native modules can count
_MOST_BYTES = 1 << 50  # of a file: what states more is damaged
_LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8  # name length, name, dimensions, one of them, type, offset


def padded(offset: int, alignment: int) -> int:
    """The first multiple of the alignment that is not before the offset."""
    return -(-offset // alignment) * alignment


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file: blocks of weights, as they lie there."""

    name: str
    shape: tuple[int, ...]  # row-major: [out, in]; [experts, out, in]
    format: Format
    view: memoryview = field(repr=False)  # u8[n_bytes], read-only, in the mapping
    offset: int  # of `view` in its file
    part: int  # index of that file

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.view.nbytes

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """`view` as an array of numpy, which is imported now."""
        import numpy as np

        return np.frombuffer(self.view, np.uint8)


@dataclass(frozen=True, slots=True)
class Split:
    """What a file says about the split model that it is a part of."""

    number: int  # from 0
    count: int  # of parts
    n_tensors: int | None  # in all parts together


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One mapped and validated file."""

    path: Path
    mapping: Any
    version: int
    alignment: int
    split: Split
    metadata: Metadata
    tensors: Mapping[str, Tensor]

    def check(self) -> None:
        """Raises FileError if bytes read from the mapping may not be those of the file that was opened."""
        if self.mapping.damaged:
            raise FileError(
                f"{self.path}: cut, changed or unreadable since it was opened, "
                f"expected the same {self.mapping.size} bytes"
            )


def read_part(path: Path, wanted: str = "a model") -> Part:
    """Maps a file and validates everything in it that is not a weight or the text of a string.

    Raises:
        FileError: the file cannot be opened, or changed meanwhile.
        FormatError: it breaks a rule of the format.
        UnsupportedError: it is of a version, byte order or weight format that is not implemented.
    """
    mapping = _map(path)
    if mapping.size == 0:
        raise _explained(
            Cursor(path, mapping.bytes), format_error(path, 0, "the file", "empty", "a GGUF file"), wanted
        )
    cursor = Cursor(path, mapping.bytes)
    try:
        part = _read(cursor, mapping)
    except (FormatError, UnsupportedError) as error:
        if mapping.damaged:
            raise FileError(f"{path}: changed while it was read") from None
        explained = _explained(cursor, error, wanted)
        raise explained from (None if explained is error else error)
    part.check()
    # Room for all of a file can be made before it is downloaded: then only this tells.
    if os.path.exists(f"{path}.aria2"):
        from clarion.gguf.kinds import cut_advice

        raise FileError(f"{path}: incomplete: {cut_advice(path)}, or remove the notes if it is complete")
    return part


def _map(path: Path) -> Any:
    try:
        return files.Mapping(path)
    except FileNotFoundError:
        from clarion.names import not_there

        raise not_there(path) from None
    except OSError as error:
        raise FileError(f"{path}: cannot be opened: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        if path.is_dir():
            from clarion.gguf.kinds import instead

            found = instead(path, "a model")
            raise FileError(f"{path}: cannot be opened: {error}{found and f': {found}'}") from None
        raise FileError(f"{path}: cannot be opened: {error}") from error


def _explained(
    cursor: Cursor, error: FormatError | UnsupportedError, wanted: str
) -> FormatError | UnsupportedError:
    """The error of a file that is none of ours, or not all of one, in words that say so."""
    from clarion.gguf import kinds

    path, begin = cursor.path, bytes(cursor.data[:4])
    detail = str(error).removeprefix(f"{path}: ")
    if not begin or not MAGIC.startswith(begin):
        found = kinds.instead(path, wanted)
        return FormatError(f"{path}: {found} ({detail})") if found else error
    if cursor.ended:
        return kinds.incomplete(path, f"it ends after {size_text(cursor.size)}, within its header", detail)
    if cursor.unwritten:
        return kinds.incomplete(path, f"nothing but zeros from byte {cursor.offset} on", detail)
    return error


def _read(cursor: Cursor, mapping: Any) -> Part:
    version = _read_version(cursor)
    n_tensors = cursor.count("number of tensors", MAX_TENSORS, _LEAST_TENSOR_BYTES)
    n_pairs = cursor.count("number of metadata pairs", MAX_PAIRS, LEAST_PAIR_BYTES)
    metadata = read_metadata(cursor, n_pairs)
    metadata.str("general.architecture", None)
    alignment = _alignment(metadata)
    split = _split(metadata)
    tensors = _read_tensors(cursor, n_tensors, alignment, split.number)
    return Part(cursor.path, mapping, version, alignment, split, metadata, tensors)


def _read_version(cursor: Cursor) -> int:
    begin = cursor.take(4, "magic")
    magic = bytes(cursor.data[begin : cursor.offset])
    if magic != MAGIC:
        raise format_error(cursor.path, begin, "magic", magic, MAGIC)
    begin = cursor.offset
    version = cursor.u32("version")
    if version in VERSIONS:
        return version
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    found, advice = f"{version}", ""
    if swapped in VERSIONS:
        found = f"{swapped} in big-endian byte order"
        advice = ": turn it round with gguf-convert-endian, of the Python package gguf"
    elif version == 1:
        advice = ": it is of August 2023; get a newer file of the model"
    raise UnsupportedError(
        f"{cursor.path}: offset {begin}: version is {found}, allowed: 2 or 3, little-endian{advice}"
    )


def _alignment(metadata: Metadata) -> int:
    key = "general.alignment"
    if key not in metadata:
        return DEFAULT_ALIGNMENT
    if metadata.type(key) != "uint32":
        raise metadata.error(key, f"of type {metadata.type(key)}", "uint32")
    alignment = metadata.int(key)
    if alignment not in ALIGNMENTS:
        raise metadata.error(key, alignment, f"a power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}")
    return alignment


def _split(metadata: Metadata) -> Split:
    """The split of a whole model has one part; tools that merge write a count of 0."""
    number = metadata.int("split.no", 0)
    count = max(metadata.int("split.count", 1), 1)
    n_tensors = metadata.int("split.tensors.count", None)
    if not 0 <= number < count:
        raise metadata.error("split.no", number, f"0 to {count - 1}")
    if count > 1 and n_tensors is None:
        raise metadata.error("split.tensors.count", None, f"a number in each of {count} parts")
    return Split(number, count, n_tensors)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the tensor table, before it is known where the tensors' bytes begin."""

    name: str
    shape: tuple[int, ...]
    format: Format
    n_bytes: int
    offset: int  # from the first tensor's byte
    offset_at: int  # where in the file the offset itself stands

    @property
    def end(self) -> int:
        return self.offset + self.n_bytes


def _read_tensors(cursor: Cursor, n_tensors: int, alignment: int, part: int) -> dict[str, Tensor]:
    rows: dict[str, _Row] = {}
    for _ in range(n_tensors):
        begin = cursor.offset
        row = _read_row(cursor, alignment)
        if row.name in rows:
            raise format_error(cursor.path, begin, "tensor name", f"{row.name!r} again", "each name once")
        rows[row.name] = row
    start = padded(cursor.offset, alignment)
    available = max(cursor.size - start, 0)
    last = None
    ordered = sorted(rows.values(), key=lambda row: row.offset)
    for row in ordered:
        if row.end > available:
            allowed = f"an end of at most {available}, where the file ends"
            error = _offset_error(cursor, row, f"{row.offset} and its end {row.end}", allowed)
            raise _cut(cursor, ordered, start, error) or error
        if row.n_bytes == 0:
            continue
        if last is not None and row.offset < last.end:
            raise _offset_error(cursor, row, row.offset, f"at least {last.end}, where {last.name!r} ends")
        last = row
    return {
        row.name: Tensor(
            row.name,
            row.shape,
            row.format,
            cursor.data[start + row.offset : start + row.end],
            start + row.offset,
            part,
        )
        for row in rows.values()
    }


def _cut(cursor: Cursor, ordered: list[_Row], start: int, error: FormatError) -> FormatError | None:
    """The error of a file whose table tells how long it should be; None where the table makes no sense."""
    end = 0
    for row in ordered:
        if not end <= row.offset <= end + ALIGNMENTS[-1]:
            return None
        end = row.end
    if start + end > _MOST_BYTES:
        return None
    from clarion.gguf.kinds import incomplete

    detail = str(error).removeprefix(f"{cursor.path}: ")
    return incomplete(cursor.path, part_text(cursor.size, start + end), detail)


def _read_row(cursor: Cursor, alignment: int) -> _Row:
    name = cursor.string("tensor name", MAX_NAME_BYTES)
    begin = cursor.offset
    n_dimensions = cursor.u32(f"number of dimensions of tensor {name!r}")
    if not 1 <= n_dimensions <= MAX_DIMENSIONS:
        field = f"number of dimensions of tensor {name!r}"
        raise format_error(cursor.path, begin, field, n_dimensions, f"1 to {MAX_DIMENSIONS}")
    begin = cursor.offset
    dimensions = [cursor.u64(f"shape of tensor {name!r}") for _ in range(n_dimensions)]
    # Without the zeros, for a product that is zero says nothing about the others.
    if math.prod(size for size in dimensions if size) > MAX_ELEMENTS:
        found, allowed = f"{dimensions[::-1]}", "at most 2^63-1 elements"
        raise format_error(cursor.path, begin, f"shape of tensor {name!r}", found, allowed)
    type_at = cursor.offset
    type_id = cursor.u32(f"type of tensor {name!r}")
    try:
        format = format_of(type_id)
    except UnsupportedError as error:
        raise UnsupportedError(f"{cursor.path}: offset {type_at}: tensor {name!r}: {error}") from None
    if dimensions[0] % format.block_size:
        allowed = f"a multiple of {format.block_size} for {format.name}"
        raise format_error(cursor.path, begin, f"row of tensor {name!r}", f"{dimensions[0]} long", allowed)
    offset_at = cursor.offset
    offset = cursor.u64(f"offset of tensor {name!r}")
    if offset % alignment:
        allowed = f"a multiple of the alignment, {alignment}"
        raise format_error(cursor.path, offset_at, f"offset of tensor {name!r}", offset, allowed)
    shape = tuple(reversed(dimensions))
    return _Row(name, shape, format, format.n_bytes(shape), offset, offset_at)


def _offset_error(cursor: Cursor, row: _Row, found: object, allowed: str) -> FormatError:
    return format_error(cursor.path, row.offset_at, f"offset of tensor {row.name!r}", found, allowed)
