"""Kinds of state that hold what can be checked: cells of (position, token), and a sum over all tokens."""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from clarion.runtime.states.kinds import REWIND, NoSpan, Part, Read, Snapshot, Span
from clarion.runtime.states.paged import PAGE_SIZE
from clarion.runtime.states.states import SequenceState, States

CELL = 2  # numbers of 32 bits: position, token
PAGE_BYTES = PAGE_SIZE * CELL * 4


class ToyPages:
    """A page device whose cells say which position of what token was written."""

    page_bytes = PAGE_BYTES

    def __init__(self, n_pages: int) -> None:
        self.cells = array("i", [-1] * (n_pages * PAGE_SIZE * CELL))
        self.copies = 0

    def page(self, i: int) -> memoryview:
        return memoryview(self.cells).cast("B")[i * PAGE_BYTES : (i + 1) * PAGE_BYTES]

    def copy_page(self, source: int, destination: int) -> None:
        self.page(destination)[:] = self.page(source)
        self.copies += 1

    def write(self, page: int, position: int, token: int) -> None:
        at = (page * PAGE_SIZE + position % PAGE_SIZE) * CELL
        self.cells[at], self.cells[at + 1] = position, token

    def read(self, page: int, position: int) -> tuple[int, int]:
        at = (page * PAGE_SIZE + position % PAGE_SIZE) * CELL
        return self.cells[at], self.cells[at + 1]


def folded(tokens: Sequence[int], state: int = 0) -> int:
    """A state that each token changes, and that no one can take back."""
    for token in tokens:
        state = zlib.crc32(token.to_bytes(4, "little"), state)
    return state


class ToySnapshot:
    def __init__(self, kind: ToyRecurrent, state: int) -> None:
        self.kind = kind
        self.state = state
        kind.n_snapshots += 1

    def release(self) -> None:
        self.kind.n_snapshots -= 1


class ToyRecurrent:
    """A kind that cannot truncate anywhere: a slot has one state, and a ring of the states before it."""

    anywhere = False
    grain = 1

    def __init__(self, n_slots: int, snapshot_bytes: int) -> None:
        self.snapshot_bytes = snapshot_bytes
        self.n_snapshots = 0
        self.state = [0] * n_slots
        self.ring: list[deque[int]] = [deque(maxlen=REWIND) for _ in range(n_slots)]

    @property
    def used_bytes(self) -> int:
        return self.n_snapshots * self.snapshot_bytes

    idle_bytes = 0

    def compute(self, slot: int, tokens: Sequence[int]) -> None:
        """What the machine does."""
        for token in tokens:
            self.ring[slot].append(self.state[slot])
            self.state[slot] = folded([token], self.state[slot])

    def part(self, slot: int) -> Part:
        return ToyPart(self, slot)

    def fingerprint(self) -> dict[str, str | int]:
        return {"kind": "toy", "bytes": 4}

    def saved_bytes(self, n: int) -> int:
        return 4

    def load_bytes(self, n: int) -> int:
        return 0


class ToyPart:
    def __init__(self, kind: ToyRecurrent, slot: int) -> None:
        self.kind = kind
        self.slot = slot
        self._set(0)

    @property
    def rewindable(self) -> int:
        return len(self.kind.ring[self.slot])

    def missing(self, n: int, *, alone: bool) -> int:
        return 0

    def reserve(self, n: int) -> None:
        """The slot has all that it needs."""

    def append(self, n: int) -> None:
        """`compute` did it."""

    def rewind(self, k: int) -> None:
        for _ in range(k):
            self.kind.state[self.slot] = self.kind.ring[self.slot].pop()

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        assert snapshot is not None or n == 0
        self._restore(snapshot)

    def fork(self, other: Part) -> None:
        assert isinstance(other, ToyPart)
        self._set(self.kind.state[other.slot])
        self.kind.ring[self.slot].extend(self.kind.ring[other.slot])

    def snapshot(self) -> Snapshot | None:
        return ToySnapshot(self.kind, self.kind.state[self.slot])

    def span(self, start: int, end: int) -> Span:
        return NoSpan()

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        assert snapshot is not None
        self._restore(snapshot)

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.kind.state[self.slot].to_bytes(4, "little"))

    def load(self, n: int, read: Read) -> None:
        data = bytearray(4)
        read(memoryview(data))
        self._set(int.from_bytes(data, "little"))

    def release(self) -> None:
        self._set(0)

    def _restore(self, snapshot: Snapshot | None) -> None:
        assert snapshot is None or isinstance(snapshot, ToySnapshot)
        self._set(0 if snapshot is None else snapshot.state)

    def _set(self, state: int) -> None:
        self.kind.state[self.slot] = state
        self.kind.ring[self.slot].clear()


class Toy:
    """States on toys, and the machine that computes them."""

    def __init__(
        self,
        *,
        n_pages: int,
        n_slots: int = 4,
        context: int = 256,
        recurrent: bool = False,
        snapshot_bytes: int = 700,
        restore_bytes: int | None = None,
    ) -> None:
        self.device = ToyPages(n_pages)
        self.recurrent = ToyRecurrent(n_slots, snapshot_bytes) if recurrent else None
        self.states = States(
            self.device,
            n_pages=n_pages,
            n_slots=n_slots,
            context=context,
            beside=[self.recurrent] if self.recurrent is not None else [],
            restore_bytes=restore_bytes,
            meaning="toys",
        )

    def compute(self, state: SequenceState, tokens: Sequence[int]) -> bool:
        """Reserves, runs and appends; False if there is no room."""
        if not state.reserve(len(tokens)):
            return False
        assert state.missing(len(tokens)) == 0
        self.run(state, tokens)
        state.append(tokens)
        return True

    def run(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """Writes behind the state's end."""
        for position, token in enumerate(tokens, state.length):
            page = self.states.table[state.slot, position // PAGE_SIZE]
            self.device.write(page, position, token)
        if self.recurrent is not None:
            self.recurrent.compute(state.slot, tokens)

    def open(self, tokens: Sequence[int]) -> SequenceState:
        """A state that holds all of these tokens, marked at its end."""
        state = self.states.open(tokens, reuse=True)
        assert state is not None
        assert self.compute(state, tokens[state.length :])
        return state

    def check(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """Whether the machine finds these tokens, and nothing else, by the state's slot."""
        assert state.tokens == list(tokens)
        assert state.length == len(tokens)
        for position, token in enumerate(tokens):
            page = self.states.table[state.slot, position // PAGE_SIZE]
            assert state.pages[position // PAGE_SIZE] == page
            assert self.device.read(page, position) == (position, token)
        if self.recurrent is not None:
            assert self.recurrent.state[state.slot] == folded(tokens)
