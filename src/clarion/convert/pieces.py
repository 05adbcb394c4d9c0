"""A tensor of the file to be written, made from one or more of the checkpoint's, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clarion.convert.encode import ENCODERS, LIMITS
from clarion.convert.matrix import Bytes, Floats, Matrix
from clarion.errors import ModelError

CHUNK_BYTES = 16 * 1024 * 1024  # of float32 values in memory at once, or one head or row where that is more
LEAST_TERNARY_SCALE = 1e-5  # of the recipe's absmean (Ma et al., 2024, The Era of 1-bit LLMs)
_Number = TypeVar("_Number", np.float32, np.uint8)


@dataclass(frozen=True, slots=True)
class Piece:
    """A matrix or vector of the checkpoint as the file wants it.

    Attributes:
        head_dim: of the heads whose halves become neighbouring rows (i, i + n/2 → 2i, 2i + 1), or 0.
        ternary: each weight is rounded to -1, 0 or 1 times the mean magnitude, as the model does.
    """

    matrix: Matrix
    head_dim: int = 0
    ternary: bool = False

    def chunks(self) -> Iterator[Floats]:
        """Its rows in order, as float32 matrices.

        Raises:
            ModelError: a value is not finite.
        """
        if not self.ternary:
            yield from self._read()
            return
        mean = sum(float(np.abs(x).sum(dtype=np.float64)) for x in self._read()) / max(
            self.matrix.n_elements, 1
        )
        scale = np.float32(max(mean, LEAST_TERNARY_SCALE))
        for x in self._read():
            yield np.clip(np.round(x / scale), -1, 1) * scale

    def formats(self) -> tuple[str, ...]:
        """The block formats that hold exactly its values, the smallest first."""
        return () if self.ternary else self.matrix.formats()

    def blocks(self, format: str) -> Iterator[Bytes]:
        """Its rows in order, in one of `formats()`, as matrices of bytes."""
        for begin, end in self._spans():
            yield self._permuted(self.matrix.blocks(begin, end, format))

    def _read(self) -> Iterator[Floats]:
        for begin, end in self._spans():
            x = self.matrix.rows(begin, end)  # [rows, cols]
            self._check(x, begin)
            yield self._permuted(x)

    def _spans(self) -> Iterator[tuple[int, int]]:
        # A vector has one row; one that is permuted is small, and taken whole.
        step = max(CHUNK_BYTES // (4 * max(self.matrix.n_cols, 1)), 1)
        if self.head_dim:
            step = max(step // self.head_dim, 1) * self.head_dim
        n_rows = self.matrix.n_rows
        return ((begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step))

    def _permuted(self, x: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        if not self.head_dim:
            return x
        shape = x.shape
        n_cols = 1 if len(self.matrix.shape) == 1 else shape[1]
        return x.reshape(-1, 2, self.head_dim // 2, n_cols).swapaxes(1, 2).reshape(shape)

    def _check(self, x: Floats, begin: int) -> None:
        if np.isfinite(x).all():
            return
        row, column = np.argwhere(~np.isfinite(x))[0]
        n_bad = int((~np.isfinite(x)).sum())
        raise ModelError(
            f"{self.matrix.path}: tensor {self.matrix.name!r} holds {x[row, column]} at "
            f"[{begin + row}, {column}] ({n_bad} such values nearby), expected finite numbers"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor of the file: pieces of one shape, stacked where `stacked`."""

    name: str
    pieces: tuple[Piece, ...]
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.pieces[0].matrix.shape
        return (len(self.pieces), *shape) if self.stacked else shape

    def formats(self) -> tuple[str, ...]:
        """The block formats that hold exactly the values of all pieces, the smallest first."""
        first, *others = (piece.formats() for piece in self.pieces)
        return tuple(name for name in first if all(name in other for other in others))

    def repack(self, format: str, progress: Callable[[int], None]) -> Iterator[Bytes]:
        """Its bytes in one of `formats()`, in chunks; `progress` hears of each chunk's length."""
        for piece in self.pieces:
            for blocks in piece.blocks(format):
                yield blocks.reshape(-1)
                progress(blocks.size)

    def encode(self, format: str, progress: Callable[[int], None]) -> Iterator[Bytes]:
        """Its bytes in chunks; `progress` hears of each chunk's length.

        Raises:
            ModelError: a value is not finite, or too large for the format.
        """
        limit, encode = LIMITS[format], ENCODERS[format]
        for piece in self.pieces:
            for chunk in piece.chunks():
                if limit < np.inf and chunk.size and np.abs(chunk).max() >= limit:
                    raise ModelError(
                        f"{piece.matrix.path}: tensor {piece.matrix.name!r} holds {np.abs(chunk).max():g}, "
                        f"which {format} cannot express; --type bf16 or f32 can"
                    )
                data = encode(chunk)
                yield data
                progress(len(data))
