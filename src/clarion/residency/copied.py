"""Weights copied from the file's mapping into huge pages, all of them before anything is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from clarion._native import files
from clarion.devices.hierarchy import Node
from clarion.devices.numa import stay_near
from clarion.residency.mapped import Mapped
from clarion.residency.shares import shares
from clarion.residency.space import Bytes, Space


class Copied:
    """Names weights to their copies. Pages of the mapping are released as they are copied."""

    place = "copied"

    def __init__(
        self, mapped: Mapped, names: Sequence[str], together: Iterable[Sequence[str]], nodes: Sequence[Node]
    ) -> None:
        """Copies on one thread for each that computes, on its node; operations read some weights `together`.

        Raises MemoryError.
        """
        self._space = Space(mapped, names)
        self._shares = shares(self._space.sizes, together, len(nodes))
        workers = [
            threading.Thread(target=self._copy, args=(thread, node), name=f"clarion-copy-{thread}")
            for thread, node in enumerate(nodes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def data(self, name: str) -> Bytes:
        """The bytes of a weight, an array of uint8."""
        return self._space.copies[name]

    def _copy(self, thread: int, node: Node) -> None:
        """Of each weight what the thread of this number will read."""
        gate = files.Gate()
        stay_near(node)
        for name, copy in self._space.copies.items():
            part = self._shares[name][thread]
            original = self._space.originals[name][part]
            files.copy(copy[part], original, gate)
            files.release(original)
