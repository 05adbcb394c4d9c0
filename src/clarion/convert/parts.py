"""Parts of stored tensors: some rows of a matrix, some elements of a vector, or a matrix transposed; and what
a function makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.convert.matrix import Bytes, Floats, Matrix
from clarion.convert.stored import Stored
from clarion.errors import ModelError
from clarion.models.family import Made, Part


def part_of(matrix: Matrix, part: Part, *, vector: bool) -> Matrix:
    """The part of a stored weight, or of a bias, that a family's file names.

    Raises:
        ModelError: its rows cannot be shared out in equal parts.
    """
    axis = -1 if vector else -2
    if len(matrix.shape) < -axis:
        return matrix  # whoever asks for it expects another shape
    if part.transposed and isinstance(matrix, Stored) and not vector:
        matrix = _Transposed(
            matrix.name, matrix.dtype, (*matrix.shape[:-2], *matrix.shape[:-3:-1]), matrix.path, matrix
        )
    if part.count == 1:
        return matrix
    if matrix.shape[axis] % part.count:
        raise ModelError(
            f"{matrix.path}: tensor {matrix.name!r} has shape {list(matrix.shape)}, expected a size that "
            f"{part.count} parts share"
        )
    size = matrix.shape[axis] // part.count
    fields = (matrix.name, matrix.dtype)
    if vector:
        return _Elements(*fields, (*matrix.shape[:-1], size), matrix.path, matrix, _place(part, size))
    shape = (*matrix.shape[:-2], size, matrix.shape[-1])
    return _Rows(*fields, shape, matrix.path, matrix, size, part)


def _place(part: Part, size: int) -> slice:
    """Where the elements of a part lie, of `size` of them."""
    if part.interleaved:
        return slice(part.index, None, part.count)
    return slice(part.index * size, (part.index + 1) * size)


@dataclass(frozen=True)
class _Elements(Matrix):
    """Some elements of each vector."""

    whole: Matrix
    place: slice

    def rows(self, begin: int, end: int) -> Floats:
        return self.whole.rows(begin, end)[:, self.place]

    @property
    def parts(self) -> tuple[str, ...]:
        return self.whole.parts


@dataclass(frozen=True)
class _Rows(Matrix):
    """Some rows of each matrix; a row keeps its blocks."""

    whole: Matrix
    size: int  # rows of a matrix that are taken
    part: Part

    def rows(self, begin: int, end: int) -> Floats:
        return self._taken(begin, end, self.whole.rows)

    def formats(self) -> tuple[str, ...]:
        return self.whole.formats()

    def blocks(self, begin: int, end: int, format: str) -> Bytes:
        return self._taken(begin, end, lambda b, e: self.whole.blocks(b, e, format))

    def _taken(self, begin: int, end: int, read: Callable[[int, int], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        found = [read(b, e)[::step] for b, e, step in self._runs(begin, end)]
        return np.concatenate(found) if found else read(0, 0)

    def _runs(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Rows of the whole, and of them every so many, that are rows `begin` to `end` here."""
        index, count = self.part.index, self.part.count
        while begin < end:
            matrix, first = divmod(begin, self.size)
            n = min(end - begin, self.size - first)
            at = matrix * self.size * count
            if self.part.interleaved:
                at += first * count + index
                yield at, at + (n - 1) * count + 1, count
            else:
                at += index * self.size + first
                yield at, at + n, 1
            begin += n

    @property
    def parts(self) -> tuple[str, ...]:
        return self.whole.parts

    @property
    def method(self) -> str:
        return self.whole.method


@dataclass(frozen=True)
class _Transposed(Matrix):
    """Each matrix with rows and columns exchanged."""

    stored: Stored

    def rows(self, begin: int, end: int) -> Floats:
        size = self.shape[-2]  # rows of a matrix here, columns there
        found = [np.empty((0, self.n_cols), np.float32)]
        while begin < end:
            matrix, first = divmod(begin, size)
            last = min(first + end - begin, size)
            at = matrix * self.n_cols
            found.append(self.stored.columns(first, last, at, at + self.n_cols).T)
            begin += last - first
        return np.concatenate(found)

    @property
    def parts(self) -> tuple[str, ...]:
        return self.stored.parts


def made_of(matrix: Matrix, made: Made, metadata: Mapping[str, Any]) -> Matrix:
    """What a family's file makes of a stored weight.

    Raises:
        ModelError: it cannot be made of a tensor of this shape.
    """
    make = made.make
    if make is None:
        return matrix
    shape = matrix.shape[1:] if made.each else matrix.shape
    try:
        one = make(metadata, np.broadcast_to(np.zeros((), np.int8), shape)).shape
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{matrix.path.name}: tensor {matrix.name!r} has shape {list(matrix.shape)}, which contradicts "
            f"the configuration: {error}"
        ) from error
    whole = (*matrix.shape[:1], *one) if made.each else tuple(one)
    return _Made(matrix.name, matrix.dtype, whole, matrix.path, matrix, partial(make, metadata), shape)


@dataclass(frozen=True)
class _Made(Matrix):
    """What a function makes of each matrix, or of all at once."""

    whole: Matrix
    make: Callable[[Any], Any]
    of: tuple[int, ...]  # the shape of what it takes
    last: dict[int, Floats] = field(default_factory=dict)  # what it made last, until all of that was read

    def rows(self, begin: int, end: int) -> Floats:
        n_taken = max(math.prod(self.of[:-1]), 1)
        n = self.n_rows // max(self.whole.n_rows // n_taken, 1)  # rows of what it makes
        found = [np.empty((0, self.n_cols), np.float32)]
        while begin < end:
            number, first = divmod(begin, n)
            size = min(end - begin, n - first)
            if number not in self.last:
                taken = self.whole.rows(number * n_taken, (number + 1) * n_taken).reshape(self.of)
                with np.errstate(over="ignore"):  # what is no number afterwards is refused
                    made = np.ascontiguousarray(self.make(taken), np.float32)
                self.last.clear()
                self.last[number] = made.reshape(n, self.n_cols)
            found.append(self.last[number][first : first + size])
            if first + size == n:
                del self.last[number]
            begin += size
        return np.concatenate(found)

    @property
    def parts(self) -> tuple[str, ...]:
        return self.whole.parts
