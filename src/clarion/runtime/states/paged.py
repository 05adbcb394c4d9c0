"""Keys and values in pages of 64 positions: the kind of state that truncates anywhere.

Position p of a sequence lies in slot p % 64 of the page in column p // 64 of its row of the page table. Pages
are shared by forks and by retained prefixes. A sequence writes only behind its end, so only a last page that
is partly filled is ever copied, and only when its sequence is about to write to it while others hold it.

The engine's thread owns pages, parts and spans.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

from clarion.errors import ParameterError
from clarion.runtime.states.kinds import REWIND, Part, Read, Snapshot, Span

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
    """Which pages are in use, by how many parts (live) and by how many spans (kept)."""

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
        """Pages that spans hold and no part."""
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
        """One more span holds a page in use."""
        self._kept[page] += 1

    def drop(self, page: int) -> None:
        """One span less holds it."""
        was_idle = self.is_idle(page)
        self._kept[page] -= 1
        self._n_idle -= was_idle and not self.is_idle(page)
        self._free_unused(page)

    def is_idle(self, page: int) -> bool:
        """Whether only spans hold it."""
        return self._live[page] == 0 and self._kept[page] > 0

    def is_shared(self, page: int, *, alone: bool = False) -> bool:
        """Whether it has several holders; `alone`: several parts."""
        return self._live[page] + (0 if alone else self._kept[page]) > 1

    def _free_unused(self, page: int) -> None:
        if self._live[page] == 0 and self._kept[page] == 0:
            self._free.append(page)


class PagedSpan:
    """The pages of columns start // 64 to (end - 1) // 64."""

    def __init__(self, pool: PagePool, start: int, end: int, pages: list[int]) -> None:
        """The pages are counted as kept already."""
        self._pool = pool
        self.start = start
        self.end = end
        self.pages = pages

    @property
    def tail_is_idle(self) -> bool:
        return self._pool.is_idle(self.pages[-1])

    def split(self, at: int) -> Span:
        tail = self.pages[at // PAGE_SIZE - self.start // PAGE_SIZE :]
        if at % PAGE_SIZE:
            self._pool.keep(tail[0])
        del self.pages[_columns(at) - self.start // PAGE_SIZE :]
        rest = PagedSpan(self._pool, at, self.end, tail)
        self.end = at
        return rest

    def cut(self, end: int) -> None:
        while len(self.pages) > _columns(end) - self.start // PAGE_SIZE:
            self._pool.drop(self.pages.pop())
        self.end = end

    def extend(self, after: Span) -> None:
        assert isinstance(after, PagedSpan)
        if self.end % PAGE_SIZE:
            self._pool.drop(self.pages.pop())
        self.pages += after.pages
        self.end = after.end

    def lean(self, after: Span) -> None:
        assert isinstance(after, PagedSpan)
        if self.end % PAGE_SIZE:
            self._pool.keep(after.pages[0])
            self._pool.drop(self.pages.pop())
            self.pages.append(after.pages[0])

    def release(self) -> None:
        while self.pages:
            self._pool.drop(self.pages.pop())


class PagedPart:
    """The pages of one sequence, and its row of the page table."""

    def __init__(self, kind: Paged, row: memoryview) -> None:
        self._kind = kind
        self._pool = kind.pool
        self._row = row  # int32 [pages of a slot]
        self._pages: list[int] = []
        self._length = 0

    @property
    def rewindable(self) -> int:
        return min(REWIND, self._length)

    def missing(self, n: int, *, alone: bool) -> int:
        new = max(0, _columns(self._length + n) - len(self._pages))
        return (new + (n > 0 and self._writes_to_shared_page(alone=alone))) * self._kind.page_bytes

    def reserve(self, n: int) -> None:
        if n > 0 and self._writes_to_shared_page(alone=False):
            column = self._length // PAGE_SIZE
            shared, own = self._pages[column], self._pool.take()
            self._kind.device.copy_page(shared, own)
            self._pool.release(shared)
            self._pages[column] = self._row[column] = own
        while len(self._pages) < _columns(self._length + n):
            self._push(self._pool.take())

    def append(self, n: int) -> None:
        assert self._length + n <= len(self._pages) * PAGE_SIZE
        self._length += n

    def rewind(self, k: int) -> None:
        self.truncate(self._length - k, None)

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        """Also gives back the room that was reserved behind n."""
        assert 0 <= n <= self._length
        self._length = n
        while len(self._pages) > _columns(n):
            self._row[len(self._pages) - 1] = 0
            self._pool.release(self._pages.pop())

    def fork(self, other: Part) -> None:
        assert isinstance(other, PagedPart)
        self._share(other._pages[: _columns(other._length)], other._length)

    def snapshot(self) -> Snapshot | None:
        return None

    def span(self, start: int, end: int) -> Span:
        pages = self._pages[start // PAGE_SIZE : _columns(end)]
        for page in pages:
            self._pool.keep(page)
        return PagedSpan(self._pool, start, end, pages)

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        pages: list[int] = []
        for span in spans:
            assert isinstance(span, PagedSpan)
            del pages[span.start // PAGE_SIZE :]  # of a page on the border, the later span has all positions
            pages += span.pages
        self._share(pages[: _columns(n)], n)

    def chunks(self) -> Iterator[memoryview]:
        for page in self._pages[: _columns(self._length)]:
            yield self._kind.device.page(page)

    def load(self, n: int, read: Read) -> None:
        self.reserve(n)
        for page in self._pages:
            read(self._kind.device.page(page))
        self._length = n

    def release(self) -> None:
        self.truncate(0, None)

    def _writes_to_shared_page(self, *, alone: bool) -> bool:
        if self._length % PAGE_SIZE == 0:
            return False
        return self._pool.is_shared(self._pages[self._length // PAGE_SIZE], alone=alone)

    def _share(self, pages: Sequence[int], n: int) -> None:
        assert not self._pages
        for page in pages:
            self._pool.share(page)
            self._push(page)
        self._length = n

    def _push(self, page: int) -> None:
        self._row[len(self._pages)] = page
        self._pages.append(page)


class Paged:
    """Keys and values of all layers."""

    anywhere = True
    grain = PAGE_SIZE
    snapshot_bytes = 0

    def __init__(self, device: PageDevice, *, n_pages: int, n_slots: int, context: int) -> None:
        if context > n_pages * PAGE_SIZE:
            raise ParameterError(
                f"states: n_pages: found {n_pages}, "
                f"expected at least {_columns(context)} for a context of {context}"
            )
        self.device = device
        self.page_bytes = device.page_bytes
        self.pool = PagePool(n_pages)
        self._columns = _columns(context)
        self._flat = memoryview(array("i", bytes(4 * n_slots * self._columns)))
        self.table = self._flat.cast("B").cast("i", (n_slots, self._columns))  # int32 [n_slots, columns]

    @property
    def used_bytes(self) -> int:
        return self.pool.n_used * self.page_bytes

    @property
    def idle_bytes(self) -> int:
        return self.pool.n_idle * self.page_bytes

    def row(self, slot: int) -> memoryview:
        """The row of the page table of a slot: int32 [columns]."""
        return self._flat[slot * self._columns : (slot + 1) * self._columns]

    def part(self, slot: int) -> Part:
        return PagedPart(self, self.row(slot))

    def fingerprint(self) -> dict[str, str | int]:
        return {"kind": "paged", "positions": PAGE_SIZE, "page_bytes": self.page_bytes}

    def saved_bytes(self, n: int) -> int:
        return _columns(n) * self.page_bytes

    def load_bytes(self, n: int) -> int:
        return _columns(n) * self.page_bytes


def _columns(length: int) -> int:
    """How many pages hold this many positions."""
    return -(-length // PAGE_SIZE)
