"""Which pages of the KV cache are in use, and by how many sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class PagePool:
    """Hands out pages and counts who holds them. Not thread-safe: the engine's thread owns it."""

    def __init__(self, n_pages: int) -> None:
        self._holders = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))

    @property
    def n_pages(self) -> int:
        return len(self._holders)

    @property
    def n_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A free page, held once. IndexError without one: ask `n_free` first."""
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more holder of a page in use."""
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """One holder less; the last one frees the page."""
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)

    def n_freed_by(self, holders: Iterable[Iterable[int]]) -> int:
        """How many pages would become free if these holders, each with its pages, released theirs."""
        held = Counter(page for pages in holders for page in pages)
        return sum(1 for page, n in held.items() if n == self._holders[page])

    def is_shared(self, page: int) -> bool:
        return self._holders[page] > 1
