"""Restore points: the lengths to which a sequence can go back, and which of them are worth their bytes.

Kinds that truncate anywhere stand at every length for nothing. For a program with a kind that does not (a
recurrent matrix, a window), a restore point is a snapshot of each such kind. Points are made

- where the engine marks one: the end of a prompt, the border between two messages, the end of an answer;
- else where a sequence has become twice as long as at its last point, so that the points of a long text are
  spaced geometrically, and going back costs at most about half of what was computed.

Points are optional, also those of running sequences: whoever needs bytes takes the least recently used ones.
A point is shared by a sequence, its forks and the tree of prefixes, and counts once. The engine's thread owns
all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from clarion.runtime.states.kinds import Kind, Part, Snapshot

FIRST_SPACED = 256  # tokens before the first point that nobody marked


class Point:
    """The state at one length, one snapshot for each kind (None where the kind needs none)."""

    __slots__ = ("alive", "holders", "length", "node", "snapshots", "stamp")

    def __init__(self, length: int, snapshots: tuple[Snapshot | None, ...], stamp: int) -> None:
        self.length = length
        self.snapshots = snapshots
        self.stamp = stamp  # when it was last used
        self.alive = True  # until it is evicted or nobody holds it
        self.holders = 0
        self.node: Any = None  # the node of the tree that holds it, if one does


class RestorePoints:
    """All points of all sequences and prefixes, the least recently used first."""

    def __init__(self, kinds: Sequence[Kind], limit_bytes: int, clock: Callable[[], int]) -> None:
        """`limit_bytes`: the most that points may use; `clock` counts uses."""
        self.needed = not all(kind.anywhere for kind in kinds)
        self.point_bytes = sum(kind.snapshot_bytes for kind in kinds)
        self.are_made = self.needed and self.point_bytes <= limit_bytes
        self._limit = limit_bytes
        self._clock = clock
        self._points: OrderedDict[Point, None] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """At most: snapshots may share memory, with each other and with sequences."""
        return len(self._points) * self.point_bytes

    @property
    def are_full(self) -> bool:
        """Whether one more would exceed the limit."""
        return self.used_bytes + self.point_bytes > self._limit

    def is_due(self, length: int, last: int) -> bool:
        """Whether a sequence of this length, whose last point is at `last`, wants one that nobody marked."""
        return length >= max(FIRST_SPACED, 2 * last)

    def make(self, length: int, parts: Iterable[Part]) -> Point:
        """A point at a length at which all parts are settled, held once. Its bytes are free."""
        point = Point(length, tuple(part.snapshot(length) for part in parts), self._clock())
        point.holders = 1
        self._points[point] = None
        return point

    def hold(self, point: Point) -> None:
        """One more holder of a point that is alive."""
        point.holders += 1

    def drop(self, point: Point) -> None:
        """One holder less; the last one frees it."""
        point.holders -= 1
        if point.holders == 0:
            self.evict(point)

    def use(self, point: Point) -> None:
        """Somebody went back to it."""
        point.stamp = self._clock()
        self._points.move_to_end(point)

    def oldest(self) -> Point | None:
        """The least recently used one."""
        return next(iter(self._points), None)

    def evict(self, point: Point) -> None:
        """Frees its bytes; its holders see that it is no longer alive."""
        if point.alive:
            point.alive = False
            del self._points[point]
            for snapshot in point.snapshots:
                if snapshot is not None:
                    snapshot.release()
