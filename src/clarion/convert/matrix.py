"""What all of a conversion knows of a weight: its shape, and its rows as numbers or as blocks of a format."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Matrix(ABC):
    """A weight of a checkpoint, however many stored tensors it is made of.

    All dimensions but the last are rows; a vector is one row, and so is a scalar.

    Attributes:
        name: what messages call it: the stored tensor that holds its numbers or codes.
        dtype: the type of the numbers, as safetensors names it; of codes with scales, that of the scales.
        shape: rows before columns.
        path: the file of the tensor `name`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path

    @abstractmethod
    def rows(self, begin: int, end: int) -> Floats:
        """Rows `begin` to `end`, as float32 [end - begin, n_cols].

        Raises:
            FileError: a file cannot be read, or is shorter than it was.
            UnsupportedError: the elements are no floating-point numbers.
        """

    def formats(self) -> tuple[str, ...]:
        """The block formats that hold exactly its values, the smallest first. It reads all scales."""
        return ()

    def blocks(self, begin: int, end: int, format: str) -> Bytes:
        """Rows `begin` to `end` in one of `formats()`, as bytes [end - begin, bytes of a row]."""
        raise AssertionError(f"{self.name} is not held by {format}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all stored tensors that it is made of."""
        return (self.name,)

    @property
    def method(self) -> str:
        """How it is quantised, in a person's words; empty: not at all."""
        return ""

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def n_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def n_cols(self) -> int:
        return self.shape[-1] if self.shape else 1


def halves(codes: Bytes) -> Bytes:
    """Codes below 16 [..., 32] as bytes of blocks [..., 16]: columns 0 to 15 in the low halves."""
    found: Bytes = codes[..., :16] | codes[..., 16:] << np.uint8(4)
    return found


def raw(values: npt.NDArray[Any]) -> Bytes:
    """The bytes of numbers [..., n], as [..., bytes]."""
    return np.ascontiguousarray(values).view(np.uint8)
