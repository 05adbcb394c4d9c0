"""Weights copied from the file's mapping into huge pages."""

from __future__ import annotations

from collections.abc import Iterable

from clarion._native import files
from clarion.residency.mapped import Mapped

# Smaller models stay in the caches, where pages do not matter.
LEAST_BYTES = 32 << 20
# Of the memory that is available: the rest of the machine has work to do too.
LARGEST_PART = 0.5


class Copied:
    """Names weights to copies in memory of our own, in pages of 2 MB where the system has them.

    One token reads each weight once, and most of what small pages cost is looking them up: see
    native/residency/huge_pages.h for the measurement. Pages of the mapping are released as they are copied.
    """

    place = "copied"

    def __init__(self, mapped: Mapped, names: Iterable[str], threads: int) -> None:
        names = list(names)
        copies = files.copy_to_huge_pages([mapped.data(name) for name in names], threads)
        self._copies: dict[str, object] = dict(zip(names, copies, strict=True))

    def data(self, name: str) -> object:
        """The bytes of a weight, an array of uint8."""
        return self._copies[name]


def worth_copying(n_bytes: int, available: int) -> bool:
    """Whether weights of so many bytes gain from a copy, with so many bytes of memory available."""
    return LEAST_BYTES <= n_bytes <= LARGEST_PART * available
