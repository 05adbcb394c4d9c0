"""States that keep every position, in pages: the kind that truncates anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clarion.errors import ParameterError
from clarion.runtime.states.kinds import REWIND, Part, Read, Snapshot, Span
from clarion.runtime.states.pages import PAGE_SIZE, PageDevice, PageKind, PagePart, PagePool, columns


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
        del self.pages[columns(at) - self.start // PAGE_SIZE :]
        rest = PagedSpan(self._pool, at, self.end, tail)
        self.end = at
        return rest

    def cut(self, end: int) -> None:
        while len(self.pages) > columns(end) - self.start // PAGE_SIZE:
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


class PagedPart(PagePart):
    """The pages of one sequence, from column 0 on."""

    @property
    def rewindable(self) -> int:
        return min(REWIND, self._length)

    def rewind(self, k: int) -> None:
        self._shorten(self._length - k)

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        """Also gives back the room that was reserved behind n."""
        self._shorten(n)

    def fork(self, other: Part) -> None:
        self._share_all(other)

    def snapshot(self, n: int) -> Snapshot | None:
        return None

    def span(self, start: int, end: int) -> Span:
        pages = self._pages[start // PAGE_SIZE : columns(end)]
        for page in pages:
            self._pool.keep(page)
        return PagedSpan(self._pool, start, end, pages)

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        pages: list[int] = []
        for span in spans:
            assert isinstance(span, PagedSpan)
            del pages[span.start // PAGE_SIZE :]  # of a page on the border, the later span has all positions
            pages += span.pages
        self._share(0, pages[: columns(n)], n)

    def chunks(self) -> Iterator[memoryview]:
        for page in self._pages[: columns(self._length)]:
            yield self._kind.device.page(page)

    def make_room(self, n: int) -> None:
        self.reserve(n)

    def fill(self, n: int, read: Read) -> None:
        for page in self._pages:
            read(self._kind.device.page(page))
        self._length = n


class Paged(PageKind):
    """The states of all layers that keep every position."""

    anywhere = True
    snapshot_bytes = 0

    def __init__(self, device: PageDevice, *, n_pages: int, n_slots: int, context: int) -> None:
        if context > n_pages * PAGE_SIZE:
            raise ParameterError(
                f"states: n_pages: found {n_pages}, "
                f"expected at least {columns(context)} for a context of {context}"
            )
        super().__init__(device, n_pages=n_pages, n_slots=n_slots, context=context)

    def part(self, slot: int) -> Part:
        return PagedPart(self, slot)

    def fingerprint(self) -> dict[str, str | int]:
        return {"kind": "paged", "positions": PAGE_SIZE, "page_bytes": self.page_bytes}

    def sequence_bytes(self, n: int) -> int:
        return columns(n) * self.page_bytes

    def saved_bytes(self, n: int) -> int:
        return columns(n) * self.page_bytes

    def load_bytes(self, n: int) -> int:
        return columns(n) * self.page_bytes
