"""A tensor in a checkpoint's file: where its numbers lie, and how they are read as float32, row by row."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.convert.matrix import Bytes, Floats, Matrix
from clarion.errors import FileError, FormatError, ModelError, UnsupportedError

Integers = npt.NDArray[np.integer[Any]]

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**63 - 1

# Bytes of an element by the name of its type. Weights are of the first six; others may stand beside them.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
ELEMENT_BYTES = FLOAT_BYTES | OTHER_BYTES
_INTEGERS = {name: f"<{name[0].lower()}{size}" for name, size in OTHER_BYTES.items() if name != "BOOL"}


@dataclass(frozen=True)
class Stored(Matrix):
    """A contiguous, row-major tensor in a file: a weight, or a part of one."""

    offset: int  # of the first element in the file

    @property
    def n_bytes(self) -> int:
        return self.n_elements * ELEMENT_BYTES[self.dtype]

    def rows(self, begin: int, end: int) -> Floats:
        self._check_floats()
        return _floats(self.bytes(begin, end).reshape(-1), self.dtype).reshape(end - begin, self.n_cols)

    def columns(self, begin: int, end: int, first: int = 0, last: int | None = None) -> Floats:
        """Columns `begin` to `end` of rows `first` to `last`, as float32 [last - first, end - begin]."""
        self._check_floats()
        last = self.n_rows if last is None else last
        found = self._column_bytes(begin, end, first, last)
        return _floats(found.reshape(-1), self.dtype).reshape(last - first, end - begin)

    def matrix(self, number: int) -> Stored:
        """One of the tensors that the first dimension counts."""
        rest = replace(self, shape=self.shape[1:])
        return replace(rest, offset=self.offset + number * rest.n_bytes)

    def values(self) -> Floats:
        """The whole tensor in its shape."""
        return self.rows(0, self.n_rows).reshape(self.shape)

    def integers(self, begin: int, end: int) -> Integers:
        """Rows `begin` to `end` of whole numbers [end - begin, n_cols], in their own type."""
        found = self.bytes(begin, end).reshape(-1).view(_INTEGERS[self.dtype])
        return found.reshape(end - begin, self.n_cols)

    def integer_columns(self, begin: int, end: int) -> Integers:
        """Columns `begin` to `end` of whole numbers [n_rows, end - begin], in their own type."""
        found = self._column_bytes(begin, end, 0, self.n_rows).reshape(-1).view(_INTEGERS[self.dtype])
        return found.reshape(self.n_rows, end - begin)

    def bytes(self, begin: int, end: int) -> Bytes:
        """The bytes of rows `begin` to `end`, [end - begin, bytes of a row].

        Raises:
            FileError: the file cannot be read, or is shorter than it was.
        """
        size = self.n_cols * ELEMENT_BYTES[self.dtype]
        n_bytes = (end - begin) * size
        found = read_exactly(self.path, self.offset + begin * size, n_bytes, repr(self.name))
        return found.reshape(end - begin, size)

    def expect(self, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> None:
        """Raises ModelError unless its type is one of these, and its shape too, where any is given."""
        where = f"{self.path}: tensor {self.name!r}"
        if self.dtype not in dtypes:
            raise ModelError(f"{where} holds {self.dtype}, expected {' or '.join(dtypes)}")
        if shapes and self.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise ModelError(f"{where} has shape {list(self.shape)}, expected {expected}")

    def _column_bytes(self, begin: int, end: int, first: int, last: int) -> Bytes:
        size = ELEMENT_BYTES[self.dtype]
        stride, width = self.n_cols * size, (end - begin) * size
        offset = self.offset + first * stride + begin * size
        return read_exactly(
            self.path, offset, (last - first) * width, repr(self.name), width=width, stride=stride
        ).reshape(last - first, width)

    def _check_floats(self) -> None:
        if self.dtype not in FLOAT_BYTES:
            raise UnsupportedError(
                f"{self.path}: tensor {self.name!r} holds {self.dtype}, expected {', '.join(FLOAT_BYTES)}"
            )


def check_shape(where: str, shape: Any) -> tuple[int, ...]:
    """The shape as a tuple; `where` names file and tensor.

    Raises:
        FormatError: not a list of at most 8 sizes from 0, with at most 2^63 - 1 elements.
    """
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
        # Without the zeros, for a product that is zero says nothing about the others.
        or math.prod(size for size in shape if size) > MAX_ELEMENTS
    ):
        raise FormatError(f"{where}: shape is {shape!r:.80}, expected at most {MAX_DIMENSIONS} sizes")
    return tuple(shape)


def read_exactly(
    path: Path, offset: int, n_bytes: int, what: str, *, width: int = 0, stride: int = 0
) -> Bytes:
    """The bytes at `offset`.

    Args:
        width: of strips that are read one after the other, where the bytes are not all in a row.
        stride: from the beginning of a strip to that of the next.

    Raises:
        FileError: the file cannot be read or ends before.
    """
    buffer = np.empty(n_bytes, np.uint8)
    view = buffer.data
    n_read = 0
    if width == stride:
        width = n_bytes
    try:
        with open(path, "rb", buffering=0) as file:
            for i, begin in enumerate(range(0, n_bytes, width or 1)):
                file.seek(offset + i * stride)
                end = begin + width
                while n_read < end and (n := file.readinto(view[n_read:end])):
                    n_read += n
                if n_read < end:
                    break
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    if n_read < n_bytes:
        raise FileError(
            f"{path}: offset {offset}: {what} takes {n_bytes} bytes, found {n_read} before the file's end"
        )
    return buffer


def _floats(raw: Bytes, dtype: str) -> Floats:
    if dtype == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return raw.view("<f2").astype(np.float32)
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "F64":
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and is refused
            return raw.view("<f8").astype(np.float32)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    return _e4m3()[raw]


@cache
def _e4m3() -> Floats:
    """The 256 values of E4M3: bias 7, no infinities, all ones is NaN. (Micikevicius et al., 2022)"""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    subnormal = mantissa * 2.0**-9
    values = np.where(exponent == 0, subnormal, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    values[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -values, values).astype(np.float32)
