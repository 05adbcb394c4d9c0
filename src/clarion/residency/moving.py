"""Weights that are read where the file is mapped, and move into huge pages while the model computes.

The first token does not wait for a copy. A thread of its own copies one extent of a weight after the other
and places the copy; the mapping's pages are released once no run uses them, so that little is in memory
twice. While an urgent run is inside the store the thread waits, after the piece in hand, about a millisecond.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import groupby

from clarion._native import files
from clarion.exiting import Background
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.residency.copying import Copies, Copying, Origin
from clarion.residency.store import Unit, place_in_file


class Moving(Copying):
    """Everything lies in the mapping at first. From `start` on the matrices move; vectors, which are read
    when programs are built, stay."""

    reads_file = True

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self._thread: Background | None = None

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        matrices = {name: unit for name, unit in units.items() if unit.weight.rows > 1}
        copies = Copies(self._origin, store, matrices)
        place_in_file(units, self._origin.tensors)
        self._work = store, list(matrices.values()), copies

    def start(self) -> None:
        thread = Background(self._move, *self._work, name="clarion-weights")
        del self._work
        try:
            thread.start()
        finally:  # also after an interrupt there may be a thread
            self._thread = thread

    def settle(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """The store has ended, so the thread ends wherever it is."""
        self.settle()

    def _move(self, store: files.Store, units: list[Unit], copies: Copies) -> None:
        _yield_to_others()
        unreleased: deque[tuple[int, memoryview]] = deque()  # and the version that replaced it
        for unit in units:
            for i, extent in enumerate(unit.extents):
                for node, piece in self._pieces(unit, extent, copies):
                    stay_near(node)
                    if not copies.copy(unit, piece):
                        return
                version = unit.place(i, copies.of(unit, extent), panels=unit.is_panels)
                unreleased.append((version, copies.original(unit, extent)))
                while unreleased and unreleased[0][0] <= store.reached():
                    files.release(unreleased.popleft()[1])
        for version, original in unreleased:
            if not store.wait(version):
                return
            files.release(original)

    def _pieces(self, unit: Unit, extent: slice, copies: Copies) -> Iterator[tuple[Node, slice]]:
        """An extent from its first byte to its last, and the memory node whose threads read each piece."""
        shares, nodes = copies.shares[unit.weight.name], self._origin.nodes
        for node, threads in groupby(range(len(shares)), nodes.__getitem__):
            mine = [shares[thread] for thread in threads]
            piece = slice(max(mine[0].start, extent.start), min(mine[-1].stop, extent.stop))
            if piece.start < piece.stop:
                yield node, piece


def _yield_to_others() -> None:
    """The lowest priority: all of an idle core, little of a busy one. On Linux each thread has its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
