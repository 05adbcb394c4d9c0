"""Weights that are read where the file is mapped, and move into huge pages while the model computes.

The first token does not wait for a copy. A thread of its own copies one piece of a weight after the other;
the program reads it there from its next run on, and the mapping's pages are released once no run uses them,
so that little is in memory twice. A copy is panels where that is possible, with the same products bit for
bit, so it never matters when a weight moves.

Who owns what: the copies belong to the mover's thread until `move_weight` hands them to the program, which
switches between two runs and says by `moved` how many it has switched. Prompts compute undisturbed: they call
`pause`, and the thread waits after the piece in hand, about a millisecond.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

from clarion._native import files
from clarion.exiting import Background
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.residency.mapped import Mapped
from clarion.residency.panels import Panels
from clarion.residency.shares import shares
from clarion.residency.space import Bytes, Space

_PIECE = 32 << 20  # bytes that are in memory twice, at most, while the program does not run
_SECONDS_BETWEEN_LOOKS = 0.02  # at what the program has switched, when nothing is left to copy


class Program(Protocol):
    """What reads the weights."""

    def move_weight(self, index: int, data: Bytes, panels: bool) -> None: ...
    def moved(self) -> int: ...


class Moving:
    """Names weights to their bytes in the mapping, and moves the matrices among them from `start` on."""

    place = "moving"

    def __init__(
        self,
        mapped: Mapped,
        names: Sequence[str],
        matrices: Sequence[bool],
        panels: Panels,
        together: Iterable[Sequence[str]],
        nodes: Sequence[Node],
    ) -> None:
        """`matrices` says which weights move; they are numbered as in the program. Some are read `together`
        by one operation; `nodes` are those of the threads that compute.

        Raises MemoryError.
        """
        self._mapped = mapped
        self._panels = panels
        self._indices = {name: i for i, name in enumerate(names) if matrices[i]}
        self._space = Space(mapped, list(self._indices))
        self._shares = shares(self._space.sizes, together, len(nodes), panels.unit)
        self._nodes = nodes
        self._gate = files.Gate()
        self._stopped = threading.Event()
        self._thread: Background | None = None

    def data(self, name: str) -> object:
        """The bytes of a weight in the mapping, an array of uint8."""
        return self._mapped.data(name)

    def is_panels(self, name: str) -> bool:
        """Whether they are panels instead of rows: not in the mapping."""
        return False

    def start(self, program: Program) -> None:
        """Begins to move weights; once."""
        self._thread = Background(self._move, program, name="clarion-weights")
        self._thread.start()

    def pause(self) -> None:
        """Until `resume`, nothing is copied: somebody waits for what is computed."""
        self._gate.close()

    def resume(self) -> None:
        self._gate.open()

    def stop(self) -> None:
        """Ends the thread, wherever it is; weights stay where they are now."""
        self._stopped.set()
        self._gate.end()
        if self._thread is not None:
            self._thread.join()

    def join(self) -> None:
        """Waits until all weights have moved."""
        if self._thread is not None:
            self._thread.join()

    def _move(self, program: Program) -> None:
        _yield_to_others()
        unreleased: deque[Bytes] = deque()
        n_released = 0
        for name, index in self._indices.items():
            copy, original = self._space.copies[name], self._space.originals[name]
            n_moved = 0
            for node, piece in self._pieces(name):
                stay_near(node)
                if not self._panels.copy(name, copy[piece], original[piece], self._gate):
                    return
                if piece.stop < copy.nbytes and self._panels.unit(name) == 1:
                    continue  # it moves when all of it is there
                program.move_weight(index, copy[: piece.stop], name in self._panels)
                unreleased.append(original[n_moved : piece.stop])
                n_moved = piece.stop
                n_released = _release(unreleased, n_released, program.moved())
        while unreleased and not self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
            n_released = _release(unreleased, n_released, program.moved())

    def _pieces(self, name: str) -> Iterator[tuple[Node, slice]]:
        """A weight from its first byte to its last, and the memory node whose threads read each piece."""
        parts, unit = self._shares[name], self._panels.unit(name)
        step = max(_PIECE // unit, 1) * unit
        for node, threads in groupby(range(len(parts)), self._nodes.__getitem__):
            mine = [parts[thread] for thread in threads]
            for start in range(mine[0].start, mine[-1].stop, step):
                yield node, slice(start, min(start + step, mine[-1].stop))


def _yield_to_others() -> None:
    """The lowest priority: all of an idle core, little of a busy one. On Linux each thread has its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _release(unreleased: deque[Bytes], n_released: int, n_moved: int) -> int:
    """Lets go of the originals that nobody reads any more; returns of how many so far."""
    while n_released < n_moved:
        files.release(unreleased.popleft())
        n_released += 1
    return n_released
