"""Weights copied from the file's mapping into huge pages, as panels, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping

from clarion._native import files
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.residency.copying import Copies, Copying
from clarion.residency.store import Unit


class Copied(Copying):
    """Copies for each thread that computes what it will read, on its node. Pages of the mapping are released
    as they are copied."""

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        from concurrent.futures import ThreadPoolExecutor  # takes 5 ms, in which others would be loaded

        copies = Copies(self._origin, store, units)

        def copy(thread: int, node: Node) -> None:
            """Of each weight what the thread of this number will read."""
            stay_near(node)
            for name, unit in units.items():
                mine = copies.shares[name][thread]
                copies.copy(unit, mine)
                files.release(copies.original(unit, mine))

        nodes = self._origin.nodes
        with ThreadPoolExecutor(len(nodes), thread_name_prefix="clarion-copy") as pool:
            for done in [pool.submit(copy, thread, node) for thread, node in enumerate(nodes)]:
                done.result()
        for unit in units.values():
            unit.place_all(copies.of(unit, slice(None)), panels=unit.is_panels)
