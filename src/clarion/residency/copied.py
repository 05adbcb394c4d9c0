"""Weights copied from the file's mapping into huge pages, all of them before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from clarion._native import files
from clarion.residency.mapped import Mapped
from clarion.residency.space import Bytes, Space


class Copied:
    """Names weights to their copies. Pages of the mapping are released as they are copied."""

    place = "copied"

    def __init__(self, mapped: Mapped, names: Sequence[str], threads: int) -> None:
        """Copies on so many threads. Raises MemoryError."""
        self._space = Space(mapped, names)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda part: self._copy(part, threads), range(threads)):
                pass

    def data(self, name: str) -> Bytes:
        """The bytes of a weight, an array of uint8."""
        return self._space.copies[name]

    def _copy(self, part: int, parts: int) -> None:
        """The same part of each weight, as threads share rows: it then lies near to who reads it."""
        for name in self._space.copies:
            for copy, original in self._space.pieces(name, part, parts):
                files.copy(copy, original)
                files.release(original)
