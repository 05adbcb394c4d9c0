"""What a kind of state must do. The runtime knows nothing else of keys and values, or of recurrent matrices.

A program declares one or several kinds. A sequence has a part of each kind, and all its parts stand at the
same length. The tree of retained prefixes has spans of each kind. The engine's thread owns all of them;
nothing here may be used by two threads at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

REWIND = 16  # tokens that every kind can take back exactly: drafts, stops that are found late

# Fills a block of memory with the next bytes of a file.
Read = Callable[[memoryview], None]


class Snapshot(Protocol):
    """A part at one length, for a kind that cannot truncate anywhere. It does not change."""

    def release(self) -> None:
        """Gives its bytes back."""
        ...


class Span(Protocol):
    """What a kind retains of the positions from `start` to `end` of a prefix.

    Spans of one path of the tree follow each other. A unit of memory (a page) may hold positions on both
    sides of a border; then the later span has all of its positions, and the earlier one those before the
    border.
    """

    @property
    def tail_is_idle(self) -> bool:
        """Whether no part holds the last unit, so that evicting it can free bytes."""
        ...

    def split(self, at: int) -> Span:
        """Keeps what lies before `at`, and returns the rest."""
        ...

    def cut(self, end: int) -> None:
        """Gives back what lies from `end` on."""
        ...

    def extend(self, after: Span) -> None:
        """Takes over what follows. `after` must not be used again."""
        ...

    def lean(self, after: Span) -> None:
        """Shares the unit on the border with the span that follows, which has all of its positions."""
        ...

    def release(self) -> None:
        """Gives everything back."""
        ...


class Part(Protocol):
    """The state of one sequence in one kind. It has the sequence's slot until it is released."""

    @property
    def rewindable(self) -> int:
        """How many of the last tokens `rewind` can take back now, at most REWIND.

        At least the tokens that were computed since the part was opened, truncated, forked, rewound or a run
        was cancelled, up to REWIND.
        """
        ...

    def missing(self, n: int, *, alone: bool) -> int:
        """Bytes that `reserve(n)` needs; `alone`: once nothing is retained for others.

        A kind may give bytes back as tokens are appended. Of more tokens than one run computes, these are
        then the bytes that are needed at once at most.
        """
        ...

    def reserve(self, n: int) -> None:
        """Makes room for n more tokens of one run, which costs `missing(n)` bytes that are free.

        The runtime does not ask where no kind misses any.
        """
        ...

    def append(self, n: int) -> None:
        """The machine has computed n more tokens in the room that was reserved."""
        ...

    def rewind(self, k: int) -> None:
        """Takes back the last k <= `rewindable` tokens. Nothing is computed again."""
        ...

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        """Goes back to length n. Without a snapshot, n is 0 or the kind truncates anywhere."""
        ...

    def fork(self, other: Part) -> None:
        """Becomes what another part of this kind is. This one is empty before."""
        ...

    def settled(self, n: int) -> int:
        """The last length m <= n at which there can be a snapshot now; 0 if there is none. n is at least the
        present length minus REWIND."""
        ...

    def snapshot(self, n: int) -> Snapshot | None:
        """The part at length n = `settled(n)`, in at most the kind's `snapshot_bytes`; None where the kind
        needs none."""
        ...

    def span(self, start: int, end: int) -> Span:
        """Shares positions with the tree of prefixes."""
        ...

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        """Shares the first n positions of the spans of a path. The part is empty before."""
        ...

    def chunks(self) -> Iterator[memoryview]:
        """The bytes that a file needs of it, in order: `saved_bytes` of its kind altogether. From any thread,
        as long as nobody else uses the sequence."""
        ...

    def make_room(self, n: int) -> None:
        """Takes the memory for n tokens of a file, `load_bytes` of its kind. The part is empty before."""
        ...

    def fill(self, n: int, read: Read) -> None:
        """Reads their bytes from the file: from any thread, as long as nobody else uses the sequence.
        ValueError where they cannot be those of n tokens."""
        ...

    def release(self) -> None:
        """Gives everything back."""
        ...


class Kind(Protocol):
    """One kind of state, and the memory of all its parts, spans and snapshots.

    Memory that a slot always has (a recurrent matrix) is nobody's expense; what comes and goes is counted. A
    run that was cancelled leaves the positions and states before it as they were.
    """

    @property
    def anywhere(self) -> bool:
        """Whether a part can be truncated to any length, without a snapshot."""
        ...

    @property
    def grain(self) -> int:
        """Positions that share a unit of memory; whole units are shared without a copy."""
        ...

    @property
    def table(self) -> memoryview:
        """What the machine finds the state of a slot by: int32 [n_slots, columns], the pages of each. A kind
        without pages has one column that nobody reads."""
        ...

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of one snapshot at most; 0 where the kind truncates anywhere."""
        ...

    @property
    def capacity_bytes(self) -> int:
        """The bytes that there are."""
        ...

    @property
    def used_bytes(self) -> int:
        """Bytes in use by parts, spans and snapshots; what several of them share counts once."""
        ...

    @property
    def idle_bytes(self) -> int:
        """Bytes that only spans and snapshots hold: they would be free if nothing were retained, and there
        were no restore points."""
        ...

    def part(self, slot: int) -> Part:
        """An empty part of the sequence that has this slot."""
        ...

    def fingerprint(self) -> dict[str, str | int]:
        """What must agree for a saved part to be loaded."""
        ...

    def sequence_bytes(self, n: int) -> int:
        """Bytes that a part needs at once, at most, on its way to n tokens."""
        ...

    def saved_bytes(self, n: int) -> int:
        """Bytes in a file of a part with n tokens."""
        ...

    def load_bytes(self, n: int) -> int:
        """Bytes that must be free to load a part with n tokens."""
        ...


class NoSpan:
    """The span of a kind that holds nothing for each position."""

    tail_is_idle = False

    def split(self, at: int) -> Span:
        return NoSpan()

    def cut(self, end: int) -> None:
        """Has nothing to give."""

    def extend(self, after: Span) -> None:
        """Has nothing to take."""

    def lean(self, after: Span) -> None:
        """Has nothing to share."""

    def release(self) -> None:
        """Has nothing to give."""


def no_table(n_slots: int) -> memoryview:
    """The table of a kind without pages."""
    return memoryview(array("i", bytes(4 * n_slots))).cast("B").cast("i", (n_slots, 1))
