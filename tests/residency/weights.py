"""Weights made up for tests of the store, and what a reader finds of them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from clarion.residency.store import Unit


@dataclass(frozen=True)
class Tensor:
    data: np.ndarray[tuple[int], np.dtype[np.uint8]]

    @property
    def view(self) -> memoryview:
        return self.data.data


@dataclass(frozen=True)
class Matrix:
    name: str
    type_id: int
    rows: int
    cols: int
    experts: int
    n_bytes: int


def matrix(name: str, rows: int, row_bytes: int, type_id: int = 0, cols: int = 1, experts: int = 1) -> Matrix:
    return Matrix(name, type_id, rows, cols, experts, experts * rows * row_bytes)


def tensors_of(weights: list[Matrix], seed: int = 0) -> dict[str, Tensor]:
    draw = np.random.default_rng(seed)
    return {weight.name: Tensor(draw.integers(0, 256, weight.n_bytes, np.uint8)) for weight in weights}


class Swapped:
    """A native module whose panels are rows with inverted bytes: none can be taken for the other."""

    def can_be_panels(self, type_id: int, rows: int) -> bool:
        return type_id == 1 and rows % 16 == 0

    def interleave(self, type_id: int, cols: int, rows: memoryview, panels: memoryview) -> None:
        panels[:] = (~np.asarray(rows)).data


class Rows(Swapped):
    """A native module that makes no panels."""

    def can_be_panels(self, type_id: int, rows: int) -> bool:
        return False


def extent_of(unit: Unit, i: int) -> bytes:
    """What the unit's extent points to, as it lies there."""
    place = unit.at(i)
    assert place is not None
    return ctypes.string_at(place[0], unit.extents[i].stop - unit.extents[i].start)


def bytes_of(unit: Unit) -> bytes:
    """What the unit's extents point to, one after the other."""
    return b"".join(extent_of(unit, i) for i in range(len(unit.extents)))


def rows_of(unit: Unit) -> bytes:
    """The weight's rows, from whatever lies there; panels are those of `Swapped`."""
    found = b""
    for i in range(len(unit.extents)):
        place = unit.at(i)
        assert place is not None
        data = extent_of(unit, i)
        found += (~np.frombuffer(data, np.uint8)).tobytes() if place[1] else data
    return found
