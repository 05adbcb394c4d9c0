"""States of which only the last positions are read, in pages that are given back as the sequence grows.

A part keeps its window and, so that tokens can be taken back, REWIND positions before it. A snapshot holds
the pages of the window at its length: no bytes are copied, and what running sequences and snapshots share is
there once. The prefix tree holds nothing of this kind but the snapshots of its points.

The engine's thread owns all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clarion.errors import ParameterError
from clarion.runtime.states.kinds import REWIND, NoSpan, Part, Read, Snapshot, Span
from clarion.runtime.states.pages import (
    PAGE_SIZE,
    PageDevice,
    PageKind,
    PagePart,
    PagePool,
    columns,
    most_columns,
)


class WindowedSnapshot:
    """The pages of a window, from column `first` on."""

    def __init__(self, pool: PagePool, first: int, pages: Sequence[int]) -> None:
        self._pool = pool
        self.first = first
        self.pages = list(pages)
        for page in self.pages:
            pool.keep(page)

    def release(self) -> None:
        while self.pages:
            self._pool.drop(self.pages.pop())


class WindowedPart(PagePart):
    """The pages of one sequence, from its window's first one on."""

    def __init__(self, kind: Windowed, slot: int) -> None:
        super().__init__(kind, slot)
        self._window = kind.window
        self._batch = kind.batch
        self._most_pages = kind.most_pages

    @property
    def rewindable(self) -> int:
        """As many as leave the whole window of the next token in what is kept."""
        k = min(REWIND, self._length)
        if self._first > 0:
            k = min(k, self._length - self._window + 1 - self._first * PAGE_SIZE)
        return k

    def reserve(self, n: int) -> None:
        assert n <= self._batch, "one run computes no more"
        super().reserve(n)

    def append(self, n: int) -> None:
        super().append(n)
        first = self._first_column(self._length - REWIND)
        if first > self._first:
            n_gone = first - self._first
            for column, page in enumerate(self._pages[:n_gone], self._first):
                self._row[column] = 0
                self._pool.release(page)
            del self._pages[:n_gone]
            self._first = first

    def rewind(self, k: int) -> None:
        self._shorten(self._length - k)

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        self._shorten(0)
        self._restore(n, snapshot)

    def fork(self, other: Part) -> None:
        self._share_all(other)

    def snapshot(self, n: int) -> Snapshot | None:
        first = self._first_column(n)
        assert first >= self._first
        pages = self._pages[first - self._first : columns(n) - self._first]
        return WindowedSnapshot(self._pool, first, pages)

    def span(self, start: int, end: int) -> Span:
        return NoSpan()

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        self._restore(n, snapshot)

    def chunks(self) -> Iterator[memoryview]:
        n = self._length
        for page in self._pages[self._first_column(n) - self._first : columns(n) - self._first]:
            yield self._kind.device.page(page)

    def make_room(self, n: int) -> None:
        self._first = self._first_column(n)
        while self._end < columns(n):
            self._push(self._pool.take())

    def fill(self, n: int, read: Read) -> None:
        for page in self._pages:
            read(self._kind.device.page(page))
        self._length = n

    def _restore(self, n: int, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            assert n == 0
            return
        assert isinstance(snapshot, WindowedSnapshot)
        self._share(snapshot.first, snapshot.pages, n)

    def _n_new(self, n: int) -> int:
        """Of more tokens than one run computes, not all are there at once."""
        new = super()._n_new(n)
        return new if n <= self._batch else min(new, max(1, self._most_pages - len(self._pages)))

    def _first_column(self, length: int) -> int:
        """Of the window of the token behind this length."""
        return max(0, length - self._window + 1) // PAGE_SIZE


class Windowed(PageKind):
    """The states of all layers of which a token sees `window` positions, its own included."""

    anywhere = False

    def __init__(
        self, device: PageDevice, *, window: int, batch: int, n_pages: int, n_slots: int, context: int
    ) -> None:
        """`batch`: tokens of one sequence that a run computes at most."""
        self.window = window
        self.batch = batch
        self.most_pages = most_pages(window, batch, context)
        if n_pages < self.most_pages:
            raise ParameterError(
                f"states: n_pages: found {n_pages}, "
                f"expected at least {self.most_pages} for a window of {window}"
            )
        super().__init__(device, n_pages=n_pages, n_slots=n_slots, context=context)

    @property
    def snapshot_bytes(self) -> int:
        return snapshot_pages(self.window, self._columns * PAGE_SIZE) * self.page_bytes

    def part(self, slot: int) -> Part:
        return WindowedPart(self, slot)

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "kind": "windowed",
            "positions": PAGE_SIZE,
            "page_bytes": self.page_bytes,
            "window": self.window,
        }

    def sequence_bytes(self, n: int) -> int:
        return min(columns(n), self.most_pages) * self.page_bytes

    def saved_bytes(self, n: int) -> int:
        return (columns(n) - max(0, n - self.window + 1) // PAGE_SIZE) * self.page_bytes

    def load_bytes(self, n: int) -> int:
        return self.saved_bytes(n)


def most_pages(window: int, batch: int, context: int) -> int:
    """Pages that a sequence holds at most while a run computes tokens of it."""
    return min(columns(context), most_columns(window - 1 + REWIND + batch))


def snapshot_pages(window: int, context: int) -> int:
    """Pages that a snapshot holds at most."""
    return min(columns(context), most_columns(window - 1))
