"""Weights copied from the file's mapping into huge pages, as panels, all of them before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from clarion._native import files
from clarion.devices.hierarchy import hierarchy, stay_near
from clarion.residency.mapped import Mapped
from clarion.residency.panels import Panels
from clarion.residency.space import Bytes, Space


class Copied:
    """Names weights to their copies. Pages of the mapping are released as they are copied."""

    place = "copied"

    def __init__(self, mapped: Mapped, names: Sequence[str], panels: Panels, threads: int) -> None:
        """Copies on so many threads. Raises MemoryError."""
        self._space = Space(mapped, names)
        self._panels = panels
        with ThreadPoolExecutor(threads, thread_name_prefix="clarion-copy") as pool:
            for done in [pool.submit(self._copy, part, threads) for part in range(threads)]:
                done.result()

    def data(self, name: str) -> Bytes:
        """The bytes of a weight, an array of uint8."""
        return self._space.copies[name]

    def is_panels(self, name: str) -> bool:
        """Whether they are panels instead of rows."""
        return name in self._panels

    def _copy(self, part: int, parts: int) -> None:
        """The same part of each weight, as threads share rows: it then lies near to who reads it."""
        gate, nodes = files.Gate(), hierarchy().nodes
        stay_near(nodes[part * len(nodes) // parts])
        for name, copy in self._space.copies.items():
            mine = self._panels.parts(name, copy.nbytes, parts)[part]
            original = self._space.originals[name][mine]
            self._panels.copy(name, copy[mine], original, gate)
            files.release(original)
