"""States that hold what can be checked: cells of (position, token) in pages, and sums over all tokens in
slots.

The kinds are the real ones, and the memory of slots is the native one; `ToyRecurrent` is a kind of its own.
What computes is here.
"""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from clarion._native.files import SlotStates
from clarion.runtime.states.kinds import REWIND, Kind, NoSpan, Part, Read, Snapshot, Span, no_table
from clarion.runtime.states.paged import Paged
from clarion.runtime.states.pages import PAGE_SIZE
from clarion.runtime.states.recurrent import Recurrent
from clarion.runtime.states.states import SequenceState, States
from clarion.runtime.states.windowed import Windowed

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
        self.table = no_table(n_slots)
        self.state = [0] * n_slots
        self.ring: list[deque[int]] = [deque(maxlen=REWIND) for _ in range(n_slots)]

    capacity_bytes = 1 << 40

    @property
    def used_bytes(self) -> int:
        return self.n_snapshots * self.snapshot_bytes

    @property
    def idle_bytes(self) -> int:
        return self.used_bytes

    def compute(self, slot: int, tokens: Sequence[int]) -> None:
        """What the machine does."""
        for token in tokens:
            self.ring[slot].append(self.state[slot])
            self.state[slot] = folded([token], self.state[slot])

    def part(self, slot: int) -> Part:
        return ToyPart(self, slot)

    def fingerprint(self) -> dict[str, str | int]:
        return {"kind": "toy", "bytes": 4}

    def sequence_bytes(self, n: int) -> int:
        return 0

    def saved_bytes(self, n: int) -> int:
        return 4

    def load_bytes(self, n: int) -> int:
        return 0


class ToyPart:
    def __init__(self, kind: ToyRecurrent, slot: int) -> None:
        self.kind = kind
        self.slot = slot
        self._set(0, 0)

    @property
    def rewindable(self) -> int:
        return len(self.kind.ring[self.slot])

    def missing(self, n: int, *, alone: bool) -> int:
        return 0

    def reserve(self, n: int) -> None:
        """The slot has all that it needs."""

    def append(self, n: int) -> None:
        """`compute` did it."""
        self.length += n

    def rewind(self, k: int) -> None:
        self.length -= k
        for _ in range(k):
            self.kind.state[self.slot] = self.kind.ring[self.slot].pop()

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        assert snapshot is not None or n == 0
        self._restore(n, snapshot)

    def fork(self, other: Part) -> None:
        assert isinstance(other, ToyPart)
        self._set(other.length, self.kind.state[other.slot])
        self.kind.ring[self.slot].extend(self.kind.ring[other.slot])

    def settled(self, n: int) -> int:
        return n if n >= self.length - self.rewindable else 0

    def snapshot(self, n: int) -> Snapshot | None:
        states = [*self.kind.ring[self.slot], self.kind.state[self.slot]]
        return ToySnapshot(self.kind, states[n - self.length - 1])

    def span(self, start: int, end: int) -> Span:
        return NoSpan()

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        assert snapshot is not None
        self._restore(n, snapshot)

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.kind.state[self.slot].to_bytes(4, "little"))

    def make_room(self, n: int) -> None:
        """The slot has all that it needs."""

    def fill(self, n: int, read: Read) -> None:
        data = bytearray(4)
        read(memoryview(data))
        self._set(n, int.from_bytes(data, "little"))

    def release(self) -> None:
        self._set(0, 0)

    def _restore(self, n: int, snapshot: Snapshot | None) -> None:
        assert snapshot is None or isinstance(snapshot, ToySnapshot)
        self._set(n, 0 if snapshot is None else snapshot.state)

    def _set(self, length: int, state: int) -> None:
        self.length = length
        self.kind.state[self.slot] = state
        self.kind.ring[self.slot].clear()


class PagesMachine:
    """Writes and finds cells in pages."""

    def __init__(self, kind: Paged | Windowed, device: ToyPages) -> None:
        self.kind: Kind = kind
        self.device = device

    def run(self, state: SequenceState, tokens: Sequence[int], appended: bool) -> None:
        """Each token finds what it sees."""
        for position, token in enumerate(tokens, state.length):
            self.device.write(self.page(state, position), position, token)
        self.see(state, [*state.tokens, *tokens], state.length)

    def check(self, state: SequenceState, tokens: Sequence[int]) -> None:
        self.see(state, tokens, state.length)

    def see(self, state: SequenceState, tokens: Sequence[int], length: int) -> None:
        """Whether the token behind `length` finds these tokens before it, and those of its batch."""
        window = self.kind.window - 1 if isinstance(self.kind, Windowed) else length
        for position in range(max(0, length - window), len(tokens)):
            assert self.device.read(self.page(state, position), position) == (position, tokens[position])

    def page(self, state: SequenceState, position: int) -> int:
        return int(self.kind.table[state.slot, position // PAGE_SIZE])


class ToyRecurrentMachine:
    def __init__(self, kind: ToyRecurrent) -> None:
        self.kind: Kind = kind
        self.toy = kind

    def run(self, state: SequenceState, tokens: Sequence[int], appended: bool) -> None:
        if appended:
            self.toy.compute(state.slot, tokens)

    def check(self, state: SequenceState, tokens: Sequence[int]) -> None:
        assert self.toy.state[state.slot] == folded(tokens)


SLOT_LAYERS = ((2, 1), (5, 2))


def mixed(layer: int, tokens: Sequence[int], state: Sequence[float] | None = None) -> list[float]:
    """What tokens make of the state of a slot's layer: numbers below 2^16, exact in float32."""
    size, _ = SLOT_LAYERS[layer]
    numbers = [0.0] * size if state is None else list(state)
    for token in tokens:
        numbers = [(x * (31 + i) + token + layer) % 65521 for i, x in enumerate(numbers)]
    return numbers


class SlotsMachine:
    """Does in native slots what an operation does, layer by layer."""

    def __init__(self, kind: Recurrent, device: SlotStates) -> None:
        self.kind: Kind = kind
        self.device = device

    def run(self, state: SequenceState, tokens: Sequence[int], appended: bool) -> None:
        """A run that is not appended was cancelled: not all layers have it."""
        for layer in range(len(SLOT_LAYERS) if appended else len(tokens) % (len(SLOT_LAYERS) + 1)):
            self.run_layer(layer, state, tokens)

    def run_layer(self, layer: int, state: SequenceState, tokens: Sequence[int]) -> None:
        at, n = state.length, len(tokens)
        if n == 0:
            return
        start, old, new, saves, current = self.device.begin(layer, state.slot, at, n)
        numbers = mixed(layer, [int(row[0]) for row in old], start)
        assert numbers == mixed(layer, state.tokens)
        for position in range(at, at + n + 1):
            for tag, copy in saves:
                if tag == position:
                    copy[:] = memoryview(array("f", numbers))
            if position < at + n:
                if (row := new[position - at]) is not None:
                    row[0] = tokens[position - at]
                numbers = mixed(layer, [tokens[position - at]], numbers)
        current[:] = memoryview(array("f", numbers))

    def check(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """By what would be saved: a state, and the tokens behind it."""
        for layer, (size, log) in enumerate(SLOT_LAYERS if tokens else ()):
            data = bytearray(self.device.layer_bytes(layer))
            self.device.write(layer, state.slot, len(tokens), data)
            tag = int.from_bytes(data[:8], "little")
            floats = memoryview(data)[8:].cast("f")
            behind = [int(floats[size + i * log]) for i in range(len(tokens) - tag)]
            assert mixed(layer, behind, floats[:size].tolist()) == mixed(layer, tokens)


class Toy:
    """States of real kinds and toys, and the machines that compute them."""

    def __init__(
        self,
        *,
        n_pages: int,
        n_slots: int = 4,
        context: int = 256,
        pages: bool = True,
        window: int = 0,
        batch: int = 40,
        slots: bool = False,
        recurrent: bool = False,
        snapshot_bytes: int = 700,
        restore_bytes: int | None = None,
    ) -> None:
        """pages, window, slots, recurrent: the kinds that there are. `batch`: tokens of a run, for a
        window."""
        shape = {"n_pages": n_pages, "n_slots": n_slots, "context": context}
        self.device = ToyPages(n_pages)
        self.machines: list[PagesMachine | ToyRecurrentMachine | SlotsMachine] = []
        if pages:
            self.machines.append(PagesMachine(Paged(self.device, **shape), self.device))
        if window:
            device = ToyPages(n_pages)
            self.machines.append(PagesMachine(Windowed(device, window=window, batch=batch, **shape), device))
        if slots:
            memory = SlotStates(SLOT_LAYERS, n_slots, n_pages * PAGE_BYTES // (2 * 64))
            kind = Recurrent(memory, n_layers=len(SLOT_LAYERS), n_slots=n_slots)
            self.machines.append(SlotsMachine(kind, memory))
        self.recurrent = ToyRecurrent(n_slots, snapshot_bytes) if recurrent else None
        if self.recurrent is not None:
            self.machines.append(ToyRecurrentMachine(self.recurrent))
        self.states = States(
            [machine.kind for machine in self.machines],
            n_slots=n_slots,
            context=context,
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

    def run(self, state: SequenceState, tokens: Sequence[int], appended: bool = True) -> None:
        """Writes behind the state's end. A run that is not `appended` was cancelled."""
        for machine in self.machines:
            machine.run(state, tokens, appended)

    def open(self, tokens: Sequence[int]) -> SequenceState:
        """A state that holds all of these tokens, marked at its end."""
        state = self.states.open(tokens, reuse=True)
        assert state is not None
        assert self.compute(state, tokens[state.length :])
        return state

    def check(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """Whether the machines find these tokens, and nothing else, by the state's slot."""
        assert state.tokens == list(tokens)
        assert state.length == len(tokens)
        for machine in self.machines:
            machine.check(state, tokens)
