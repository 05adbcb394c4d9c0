"""Weights copied from the file's mapping into huge pages, all of them before anything is computed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from clarion._native import files
from clarion.devices.hierarchy import hierarchy, stay_near
from clarion.residency.mapped import Mapped
from clarion.residency.space import Bytes, Space


class Copied:
    """Names weights to their copies. Pages of the mapping are released as they are copied."""

    place = "copied"

    def __init__(self, mapped: Mapped, names: Sequence[str], threads: int) -> None:
        """Copies on so many threads. Raises MemoryError."""
        self._space = Space(mapped, names)
        workers = [
            threading.Thread(target=self._copy, args=(part, threads), name=f"clarion-copy-{part}")
            for part in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def data(self, name: str) -> Bytes:
        """The bytes of a weight, an array of uint8."""
        return self._space.copies[name]

    def _copy(self, part: int, parts: int) -> None:
        """The same part of each weight, as threads share rows: it then lies near to who reads it."""
        gate, nodes = files.Gate(), hierarchy().nodes
        stay_near(nodes[part * len(nodes) // parts])
        for name, copy in self._space.copies.items():
            first, last = (copy.nbytes * i // parts for i in (part, part + 1))
            original = self._space.originals[name][first:last]
            files.copy(copy[first:last], original, gate)
            files.release(original)
