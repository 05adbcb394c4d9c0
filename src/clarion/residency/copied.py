"""Weights copied from the file's mapping into huge pages, as panels, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clarion._native import files
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.residency.mapped import Mapped
from clarion.residency.panels import Panels
from clarion.residency.shares import shares
from clarion.residency.space import Bytes, Space


class Copied:
    """Names weights to their copies. Pages of the mapping are released as they are copied."""

    place = "copied"

    def __init__(
        self,
        mapped: Mapped,
        names: Sequence[str],
        panels: Panels,
        together: Iterable[Sequence[str]],
        nodes: Sequence[Node],
    ) -> None:
        """Copies for each thread that computes what it will read, on its node; some weights are read
        `together` by one operation.

        Raises MemoryError.
        """
        from concurrent.futures import ThreadPoolExecutor  # takes 5 ms, in which others would be loaded

        self._space = Space(mapped, names)
        self._panels = panels
        self._shares = shares(self._space.sizes, together, len(nodes), panels.unit)
        with ThreadPoolExecutor(len(nodes), thread_name_prefix="clarion-copy") as pool:
            for done in [pool.submit(self._copy, thread, node) for thread, node in enumerate(nodes)]:
                done.result()

    def data(self, name: str) -> Bytes:
        """The bytes of a weight, an array of uint8."""
        return self._space.copies[name]

    def is_panels(self, name: str) -> bool:
        """Whether they are panels instead of rows."""
        return name in self._panels

    def _copy(self, thread: int, node: Node) -> None:
        """Of each weight what the thread of this number will read."""
        gate = files.Gate()
        stay_near(node)
        for name, copy in self._space.copies.items():
            mine = self._shares[name][thread]
            original = self._space.originals[name][mine]
            self._panels.copy(name, copy[mine], original, gate)
            files.release(original)
