"""Matrices written as panels of 16 rows, the order in which processors multiply them.

A file has rows, and 16 of them are 16 streams whose bytes every product would have to shuffle; in a panel
they lie side by side (native/kernels/panel.h). That is the same number of bytes and the same products, bit
for bit, so a matrix that is copied anyway is copied so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clarion._native import files

Bytes = npt.NDArray[np.uint8]

_PIECE = 2 << 20  # bytes between two looks at the gate: a millisecond
_ROWS = 16


class Core(Protocol):
    """A native module."""

    def can_be_panels(self, type_id: int, rows: int) -> bool: ...
    def interleave(self, type_id: int, cols: int, rows: Bytes, panels: Bytes) -> None: ...


class Matrix(Protocol):
    """A weight of a plan: `experts` matrices of [rows, cols]."""

    @property
    def name(self) -> str: ...
    @property
    def type_id(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def experts(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...


class Panels:
    """Copies weights, as panels those of which the module can make them, the others as they are."""

    def __init__(self, core: Core, weights: Iterable[Matrix]) -> None:
        self._core = core
        weights = [w for w in weights if w.rows % _ROWS == 0]
        self._units = {w.name: w.n_bytes // (w.experts * w.rows) * _ROWS for w in weights}
        self._matrices = {w.name: w for w in weights if core.can_be_panels(w.type_id, w.rows)}

    def __contains__(self, name: str) -> bool:
        """Whether a copy of this weight is panels."""
        return name in self._matrices

    def unit(self, name: str) -> int:
        """Bytes of 16 rows of a weight, or one byte where it does not consist of such."""
        return self._units.get(name, 1)

    def copy(self, name: str, to: Bytes, original: Bytes, gate: files.Gate) -> bool:
        """Copies whole units of a weight while the gate is open; False if it ended."""
        if name not in self._matrices:
            return files.copy(to, original, gate)
        matrix, unit = self._matrices[name], self.unit(name)
        piece = max(_PIECE // unit, 1) * unit
        for at in range(0, to.nbytes, piece):
            if not gate.wait():
                return False
            part = slice(at, min(at + piece, to.nbytes))
            self._core.interleave(matrix.type_id, matrix.cols, original[part], to[part])
        return True
