"""A tensor of the file to be written, made from one or more of the checkpoint's, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarion.convert.encode import ENCODERS, LIMITS, Bytes
from clarion.convert.stored import Floats, Stored
from clarion.errors import ModelError

CHUNK_BYTES = 16 * 1024 * 1024  # of float32 values in memory at once, or one head or row where that is more
LEAST_TERNARY_SCALE = 1e-5  # of the recipe's absmean (Ma et al., 2024, The Era of 1-bit LLMs)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored matrix or vector as the file wants it.

    Attributes:
        scale: what float8 values are multiplied with: one number, one for each row, or one for each block.
        block: rows and columns of such a block.
        head_dim: of the heads whose halves become neighbouring rows (i, i + n/2 → 2i, 2i + 1), or 0.
        ternary: each weight is rounded to -1, 0 or 1 times the mean magnitude, as the model does.
        make: what the file's values are made with, of all of the checkpoint's at once; None: they are those.
    """

    stored: Stored
    scale: Stored | None = None
    block: tuple[int, int] = (0, 0)
    head_dim: int = 0
    ternary: bool = False
    make: Callable[[Any], Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the file's values have.

        Raises:
            ModelError: they cannot be made of a tensor of this shape.
        """
        stored = self.stored
        if self.make is None:
            return stored.shape
        try:
            return tuple(self.make(np.broadcast_to(np.zeros((), np.int8), stored.shape)).shape)
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"{stored.path.name}: tensor {stored.name!r} has shape {list(stored.shape)}, which "
                f"contradicts the configuration: {error}"
            ) from error

    def chunks(self) -> Iterator[Floats]:
        """Its rows in order, as float32 matrices.

        Raises:
            ModelError: a value is not finite, or the scale has another shape.
        """
        if self.make is not None:
            whole = np.concatenate(list(self._read())).reshape(self.stored.shape)
            with np.errstate(over="ignore"):  # what is no number afterwards is refused
                made = np.ascontiguousarray(self.make(whole), np.float32)
            rows = made.reshape(-1, made.shape[-1])
            self._check(rows, 0)
            yield rows
            return
        if not self.ternary:
            yield from self._read()
            return
        mean = sum(float(np.abs(x).sum(dtype=np.float64)) for x in self._read()) / max(
            self.stored.n_elements, 1
        )
        scale = np.float32(max(mean, LEAST_TERNARY_SCALE))
        for x in self._read():
            yield np.clip(np.round(x / scale), -1, 1) * scale

    def _read(self) -> Iterator[Floats]:
        scale = self._scales()
        # A vector has one row; one that is permuted is small, and taken whole.
        n_rows, n_cols = self.stored.n_rows, self.stored.n_cols
        step = max(CHUNK_BYTES // (4 * max(n_cols, 1)), 1)
        if self.head_dim:
            step = max(step // self.head_dim, 1) * self.head_dim
        for begin in range(0, n_rows, step):
            end = min(begin + step, n_rows)
            x = self.stored.rows(begin, end)  # [rows, cols]
            if scale is not None:
                with np.errstate(all="ignore"):  # what is no number afterwards is refused
                    x = x * scale(begin, end)
            self._check(x, begin)
            yield self._permuted(x)

    def _permuted(self, x: Floats) -> Floats:
        if not self.head_dim:
            return x
        shape = x.shape
        n_cols = 1 if len(self.stored.shape) == 1 else shape[1]
        return x.reshape(-1, 2, self.head_dim // 2, n_cols).swapaxes(1, 2).reshape(shape)

    def _check(self, x: Floats, begin: int) -> None:
        if np.isfinite(x).all():
            return
        row, column = np.argwhere(~np.isfinite(x))[0]
        n_bad = int((~np.isfinite(x)).sum())
        raise ModelError(
            f"{self.stored.path}: tensor {self.stored.name!r} holds {x[row, column]} at "
            f"[{begin + row}, {column}] ({n_bad} such values nearby), expected finite numbers"
        )

    def _scales(self) -> Callable[[int, int], Floats] | None:
        """What gives the factors of rows begin to end, in a shape that multiplies them."""
        if self.scale is None:
            return None
        values = self.scale.values()
        rows, cols = self.stored.n_rows, self.stored.n_cols
        if values.size == 1:
            return lambda begin, end: values.reshape(1, 1)
        if values.shape in ((rows,), (rows, 1)):
            return lambda begin, end: values.reshape(-1, 1)[begin:end]
        block_rows, block_cols = self.block
        if (
            block_rows < 1
            or block_cols < 1
            or values.shape != (-(-rows // block_rows), -(-cols // block_cols))
        ):
            raise ModelError(
                f"{self.scale.path}: tensor {self.scale.name!r} has shape {list(values.shape)}, expected one "
                f"scale, one for each of {rows} rows, or one for each block of {block_rows} × {block_cols}"
            )
        return lambda begin, end: values[np.arange(begin, end) // block_rows].repeat(block_cols, axis=1)[
            :, :cols
        ]


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor of the file: pieces of one shape, stacked where `stacked`."""

    name: str
    pieces: tuple[Piece, ...]
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.pieces[0].shape
        return (len(self.pieces), *shape) if self.stacked else shape

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
                        f"{piece.stored.path}: tensor {piece.stored.name!r} holds {np.abs(chunk).max():g}, "
                        f"which {format} cannot express; --type bf16 or f32 can"
                    )
                data = encode(chunk)
                yield data
                progress(len(data))
