"""Pages of 64 positions: who holds which, and what all kinds of state do that lie in pages.

Position p of a sequence lies in slot p % 64 of the page in column p // 64 of its row of the page table. Pages
are shared by forks and by what is retained. A sequence writes only behind its end, so only a last page that
is partly filled is ever copied, and only when its sequence is about to write to it while others hold it.

The engine's thread owns pages, parts and what is retained of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from clarion.runtime.states.kinds import Part

PAGE_SIZE = 64  # positions in a page


class PageDevice(Protocol):
    """The memory of the pages: a native cache, or a fake."""

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        ...

    def copy_page(self, source: int, destination: int) -> None: ...

    def page(self, i: int) -> memoryview:
        """The bytes of one page, writable."""
        ...


class PagePool:
    """Which pages are in use, by how many parts (live) and by how many spans and snapshots (kept)."""

    def __init__(self, n_pages: int) -> None:
        self._live = [0] * n_pages
        self._kept = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))
        self._n_idle = 0

    @property
    def n_used(self) -> int:
        return len(self._live) - len(self._free)

    @property
    def n_idle(self) -> int:
        """Pages that are kept and that no part holds."""
        return self._n_idle

    def take(self) -> int:
        """A free page for one part. IndexError without one: the budget was to be asked first."""
        page = self._free.pop()
        self._live[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more part holds a page in use."""
        self._n_idle -= self.is_idle(page)
        self._live[page] += 1

    def release(self, page: int) -> None:
        """One part less holds it."""
        self._live[page] -= 1
        self._n_idle += self.is_idle(page)
        self._free_unused(page)

    def keep(self, page: int) -> None:
        """One more span or snapshot holds a page in use."""
        self._kept[page] += 1

    def drop(self, page: int) -> None:
        """One span or snapshot less holds it."""
        was_idle = self.is_idle(page)
        self._kept[page] -= 1
        self._n_idle -= was_idle and not self.is_idle(page)
        self._free_unused(page)

    def is_idle(self, page: int) -> bool:
        """Whether it is kept and no part holds it."""
        return self._live[page] == 0 and self._kept[page] > 0

    def is_shared(self, page: int, *, alone: bool = False) -> bool:
        """Whether it has several holders; `alone`: several parts."""
        return self._live[page] + (0 if alone else self._kept[page]) > 1

    def _free_unused(self, page: int) -> None:
        if self._live[page] == 0 and self._kept[page] == 0:
            self._free.append(page)


class PageKind:
    """What the kinds of state have in common that lie in pages: the pages, and the table of who has which."""

    grain = PAGE_SIZE

    def __init__(self, device: PageDevice, *, n_pages: int, n_slots: int, context: int) -> None:
        self.device = device
        self.page_bytes = device.page_bytes
        self.pool = PagePool(n_pages)
        self._n_pages = n_pages
        self._columns = columns(context)
        self._flat = memoryview(array("i", bytes(4 * n_slots * self._columns)))
        self.table = self._flat.cast("B").cast("i", (n_slots, self._columns))  # int32 [n_slots, columns]

    @property
    def capacity_bytes(self) -> int:
        return self._n_pages * self.page_bytes

    @property
    def used_bytes(self) -> int:
        return self.pool.n_used * self.page_bytes

    @property
    def idle_bytes(self) -> int:
        return self.pool.n_idle * self.page_bytes

    def row(self, slot: int) -> memoryview:
        """The row of the page table of a slot: int32 [columns]."""
        return self._flat[slot * self._columns : (slot + 1) * self._columns]


class PagePart:
    """The pages of one sequence, in neighbouring columns, and its row of the page table."""

    def __init__(self, kind: PageKind, slot: int) -> None:
        self._kind = kind
        self._pool = kind.pool
        self._row = kind.row(slot)
        self._first = 0  # the column of the first page
        self._pages: list[int] = []
        self._length = 0

    def missing(self, n: int, *, alone: bool) -> int:
        copies = n > 0 and self._writes_to_shared_page(alone=alone)
        return (self._n_new(n) + copies) * self._kind.page_bytes

    def reserve(self, n: int) -> None:
        if n > 0 and self._writes_to_shared_page(alone=False):
            column = self._length // PAGE_SIZE
            shared, own = self._pages[column - self._first], self._pool.take()
            self._kind.device.copy_page(shared, own)
            self._pool.release(shared)
            self._pages[column - self._first] = self._row[column] = own
        while self._end < columns(self._length + n):
            self._push(self._pool.take())

    def append(self, n: int) -> None:
        assert self._length + n <= self._end * PAGE_SIZE
        self._length += n

    def settled(self, n: int) -> int:
        return n

    def release(self) -> None:
        self._shorten(0)

    @property
    def _end(self) -> int:
        """The column behind the last page."""
        return self._first + len(self._pages)

    def _n_new(self, n: int) -> int:
        """How many pages n more tokens need beyond what there are."""
        return max(0, columns(self._length + n) - self._end)

    def _writes_to_shared_page(self, *, alone: bool) -> bool:
        if self._length % PAGE_SIZE == 0:
            return False
        return self._pool.is_shared(self._pages[self._length // PAGE_SIZE - self._first], alone=alone)

    def _shorten(self, n: int) -> None:
        """Goes back to length n, and gives back all pages behind it, also those that were reserved."""
        assert 0 <= n <= self._length
        self._length = n
        while self._pages and self._end > columns(n):
            self._row[self._end - 1] = 0
            self._pool.release(self._pages.pop())
        if not self._pages:
            self._first = 0

    def _share(self, first: int, pages: Sequence[int], n: int) -> None:
        """Holds pages of others, from a column on, for n positions."""
        assert not self._pages
        self._first = first
        for page in pages:
            self._pool.share(page)
            self._push(page)
        self._length = n

    def _share_all(self, other: Part) -> None:
        """Holds what another part of this kind holds, up to its length."""
        assert isinstance(other, PagePart)
        pages = other._pages[: columns(other._length) - other._first]
        self._share(other._first, pages, other._length)

    def _push(self, page: int) -> None:
        self._row[self._end] = page
        self._pages.append(page)


def columns(length: int) -> int:
    """How many pages hold this many positions from the first on."""
    return -(-length // PAGE_SIZE)


def most_columns(n: int) -> int:
    """How many pages n neighbouring positions touch at most."""
    return (n + PAGE_SIZE - 2) // PAGE_SIZE + 1
