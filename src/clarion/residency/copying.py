"""Copies of weights in huge pages, as panels where there can be some, each near to the threads that read it.

One token reads each weight once, and most of what small pages cost is looking them up: see
native/residency/huge_pages.h for the measurement. A file has rows, and 16 of them are 16 streams whose bytes
every product would have to shuffle; in a panel they lie side by side (native/kernels/panel.h). That is the
same number of bytes, so a matrix that is copied anyway is copied so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from clarion._native import files
from clarion.host.hierarchy import Node
from clarion.residency.shares import shares
from clarion.residency.store import Policy, Tensor, Unit, Weight

_PIECE = 2 << 20  # bytes between two looks at the gate: a millisecond
_LINE = 64  # copies begin at cache lines


class Module(Protocol):
    """A native module, of which copies need two functions."""

    def can_be_panels(self, type_id: int, rows: int) -> bool: ...
    def interleave(self, type_id: int, cols: int, rows: memoryview, panels: memoryview) -> None: ...


class Origin:
    """Where copies come from, and for whom they are made."""

    def __init__(
        self,
        module: Module,
        tensors: Mapping[str, Tensor],
        together: Iterable[Sequence[str]],
        nodes: Sequence[Node],
    ) -> None:
        """Some weights are read `together` by one operation; `nodes` are those of the computing threads."""
        self.module = module
        self.tensors = tensors
        self.together = [tuple(group) for group in together]
        self.nodes = nodes


class Copying(Policy):
    """A policy that copies weights, as panels where the native module can make some."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def copies_are_panels(self, weight: Weight) -> bool:
        return self._origin.module.can_be_panels(weight.type_id, weight.rows)


class Copies:
    """Memory in pages of 2 MB, where the system has them, with a place for each of some units. Pages take
    memory when they are first written."""

    def __init__(self, origin: Origin, store: files.Store, units: Mapping[str, Unit]) -> None:
        """Raises MemoryError."""
        self._module = origin.module
        self._store = store
        self._originals = {name: memoryview(origin.tensors[name].view) for name in units}
        sizes = {name: original.nbytes for name, original in self._originals.items()}
        starts = [0, *accumulate(-(-size // _LINE) * _LINE for size in sizes.values())]
        memory = files.HugePages(starts[-1]).bytes
        self._copies = {
            name: memory[start : start + size]
            for start, (name, size) in zip(starts, sizes.items(), strict=False)
        }
        self.shares = shares(sizes, origin.together, len(origin.nodes), lambda name: units[name].step)

    def copy(self, unit: Unit, piece: slice) -> bool:
        """Copies whole steps of a unit while no urgent run is inside the store; False if that ended."""
        weight = unit.weight
        to, original = self.of(unit, piece), self.original(unit, piece)
        if not unit.is_panels:
            return files.copy(to, original, self._store)
        step = max(_PIECE // unit.step, 1) * unit.step
        for at in range(0, to.nbytes, step):
            if not self._store.gate():
                return False
            some = slice(at, min(at + step, to.nbytes))
            self._module.interleave(weight.type_id, weight.cols, original[some], to[some])
        return True

    def of(self, unit: Unit, piece: slice) -> memoryview:
        """The copy of a piece."""
        return self._copies[unit.weight.name][piece]

    def original(self, unit: Unit, piece: slice) -> memoryview:
        """What it was copied from."""
        return self._originals[unit.weight.name][piece]
