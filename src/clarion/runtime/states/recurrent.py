"""Recurrent states: of fixed size, in the slot of a sequence, changed by each of its tokens.

A snapshot is a copy, under the budget of bytes. What a slot keeps so that the last tokens can be taken back,
and a cancelled run computed again, is the native memory's affair (native/machine/slot_states.h): a part asks
it how far it can go back. Going back changes nothing there; the next run says from where it goes on.

The engine's thread owns all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from clarion.runtime.states.kinds import NoSpan, Part, Read, Snapshot, Span, no_table


class SlotDevice(Protocol):
    """The memory of slots and snapshots: `clarion._native.files.SlotStates`, or a fake."""

    @property
    def snapshots(self) -> int:
        """How many there are."""
        ...

    @property
    def snapshot_bytes(self) -> int: ...

    def first(self, slot: int, position: int) -> int:
        """The first position from which on each one up to `position` can be gone back to."""
        ...

    def settled(self, slot: int, position: int) -> int:
        """The last position up to `position` of which a snapshot can be saved; 0 if there is none."""
        ...

    def reset(self, slot: int) -> None: ...

    def copy(self, slot: int, other: int) -> None: ...

    def save(self, slot: int, position: int, snapshot: int) -> None: ...

    def restore(self, snapshot: int, slot: int, position: int) -> None: ...

    def layer_bytes(self, layer: int) -> int:
        """Of what `write` writes."""
        ...

    def write(self, layer: int, slot: int, position: int, to: Any) -> None: ...

    def read(self, layer: int, slot: int, position: int, from_: Any) -> None:
        """ValueError where the bytes are of another position."""
        ...


class RecurrentSnapshot:
    """A copy of the states of all layers."""

    def __init__(self, kind: Recurrent, slot: int, position: int) -> None:
        self._kind = kind
        self.number = kind.free.pop()
        kind.device.save(slot, position, self.number)

    def release(self) -> None:
        self._kind.free.append(self.number)


class RecurrentPart:
    """The state in one slot."""

    def __init__(self, kind: Recurrent, slot: int) -> None:
        self._kind = kind
        self._device = kind.device
        self._slot = slot
        self._length = 0

    @property
    def rewindable(self) -> int:
        """None of what lies before a run of more than REWIND tokens that was cancelled."""
        return self._length - self._device.first(self._slot, self._length)

    def missing(self, n: int, *, alone: bool) -> int:
        return 0

    def reserve(self, n: int) -> None:
        """The slot has all that it needs."""

    def append(self, n: int) -> None:
        self._length += n

    def rewind(self, k: int) -> None:
        self._length -= k

    def truncate(self, n: int, snapshot: Snapshot | None) -> None:
        self._restore(n, snapshot)

    def fork(self, other: Part) -> None:
        assert isinstance(other, RecurrentPart)
        self._device.copy(other._slot, self._slot)
        self._length = other._length

    def settled(self, n: int) -> int:
        return self._device.settled(self._slot, n)

    def snapshot(self, n: int) -> Snapshot | None:
        return RecurrentSnapshot(self._kind, self._slot, n)

    def span(self, start: int, end: int) -> Span:
        return NoSpan()

    def adopt(self, spans: Sequence[Span], n: int, snapshot: Snapshot | None) -> None:
        self._restore(n, snapshot)

    def chunks(self) -> Iterator[memoryview]:
        for layer in range(self._kind.n_layers if self._length else 0):
            data = memoryview(bytearray(self._device.layer_bytes(layer)))
            self._device.write(layer, self._slot, self._length, data)
            yield data

    def make_room(self, n: int) -> None:
        """The slot has all that it needs."""

    def fill(self, n: int, read: Read) -> None:
        for layer in range(self._kind.n_layers if n else 0):
            data = memoryview(bytearray(self._device.layer_bytes(layer)))
            read(data)
            self._device.read(layer, self._slot, n, data)
        self._length = n

    def release(self) -> None:
        self._device.reset(self._slot)
        self._length = 0

    def _restore(self, n: int, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            assert n == 0
            self._device.reset(self._slot)
        else:
            assert isinstance(snapshot, RecurrentSnapshot)
            self._device.restore(snapshot.number, self._slot, n)
        self._length = n


class Recurrent:
    """The recurrent states of all layers."""

    anywhere = False
    grain = 1

    def __init__(self, device: SlotDevice, *, n_layers: int, n_slots: int) -> None:
        self.device = device
        self.n_layers = n_layers
        self.snapshot_bytes = device.snapshot_bytes
        self.free = list(range(device.snapshots - 1, -1, -1))
        self.table = no_table(n_slots)

    @property
    def capacity_bytes(self) -> int:
        return self.device.snapshots * self.snapshot_bytes

    @property
    def used_bytes(self) -> int:
        return (self.device.snapshots - len(self.free)) * self.snapshot_bytes

    @property
    def idle_bytes(self) -> int:
        return self.used_bytes

    def part(self, slot: int) -> Part:
        return RecurrentPart(self, slot)

    def fingerprint(self) -> dict[str, str | int]:
        return {"kind": "recurrent", "layers": self.n_layers, "bytes": self.saved_bytes(1)}

    def sequence_bytes(self, n: int) -> int:
        return 0

    def saved_bytes(self, n: int) -> int:
        return sum(map(self.device.layer_bytes, range(self.n_layers))) if n else 0

    def load_bytes(self, n: int) -> int:
        return 0
