"""The states of all sequences, under one budget of bytes.

A sequence has a slot from `open` (or `fork`, `load`) to `release` (or `retain`), the same all the time, by
which the machine knows it. Its state is one part for each kind that the program declares. What ended is
retained as a prefix for others until somebody needs its bytes; nothing retained is given up for a sequence
that would not fit even then.

The engine's thread owns `States` and every `SequenceState`; no other thread may use them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clarion.errors import ContextError, FormatError, ParameterError
from clarion.runtime.states.kinds import REWIND, Kind, Snapshot
from clarion.runtime.states.layout import Layout
from clarion.runtime.states.prefixes import Prefixes, Spans, age
from clarion.runtime.states.restore import Point, RestorePoints

if TYPE_CHECKING:
    from clarion.runtime.states.files import SavedState

# To share a shorter prefix costs more (a page is copied in every layer) than to compute it again. Whole pages
# are longer than that, and shared without a copy.
SHORTEST_REUSE = 16


class States:
    """Slots, kinds of state, restore points and retained prefixes."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        *,
        n_slots: int,
        context: int,
        budget_bytes: int | None = None,
        restore_bytes: int | None = None,
        meaning: str | Callable[[], str] = "",
    ) -> None:
        """
        Args:
            kinds: what the program declares, in the order in which the machine takes their tables.
            n_slots: sequences that have a state at once.
            context: tokens that a sequence may have.
            budget_bytes: the most that parts, prefixes and restore points use together, at most what each
                kind has (the default), so that whoever has bytes left has a page or a snapshot left.
            restore_bytes: the most of it that restore points use; by default all.
            meaning: what a saved state must agree in beyond its kinds: the model, and how it computes.

        Raises:
            ParameterError: the budget does not hold one sequence of `context` tokens, or exceeds a kind.
        """
        self.context = context
        self.kinds: tuple[Kind, ...] = tuple(kinds)
        self.layout = Layout(self.kinds, meaning)
        self.tables = [kind.table for kind in kinds]  # of each, int32 [n_slots, columns]
        most = min((kind.capacity_bytes for kind in kinds), default=0)
        self.budget_bytes = most if budget_bytes is None else budget_bytes
        least = sum(kind.sequence_bytes(context) for kind in kinds)
        if not least <= self.budget_bytes <= most:
            raise ParameterError(
                f"states: budget_bytes: found {self.budget_bytes}, expected {least} (for {context} "
                f"tokens, the context) to {most}"
            )
        clock = itertools.count(1).__next__
        self.points = RestorePoints(
            self.kinds, self.budget_bytes if restore_bytes is None else restore_bytes, clock
        )
        self.grain = max((kind.grain for kind in self.kinds), default=1)
        self.prefixes = Prefixes(self.grain, self.points, clock)
        self._slots = list(range(n_slots - 1, -1, -1))

    @property
    def used_bytes(self) -> int:
        """Bytes that parts, prefixes and restore points use; what several of them share counts once."""
        return sum(kind.used_bytes for kind in self.kinds)

    @property
    def free_bytes(self) -> int:
        """What is left of the budget."""
        return self.budget_bytes - self.used_bytes

    @property
    def evictable_bytes(self) -> int:
        """What evicting all retained prefixes and restore points would free."""
        return sum(kind.idle_bytes for kind in self.kinds)

    @property
    def free_slots(self) -> int:
        """How many more sequences can be opened."""
        return len(self._slots)

    def open(self, tokens: Sequence[int], *, reuse: bool, most: int | None = None) -> SequenceState | None:
        """A state for these tokens, which holds `state.length` of them already; None without a free slot.

        With `reuse`, it continues the longest retained prefix of the first `most` tokens; None: of all but
        the last, whose logits are wanted and so have to be computed. Nothing is evicted, and no bytes are
        used, before `reserve`.
        """
        if not self._slots:
            return None
        state = SequenceState(self, self._slots.pop())
        if reuse:
            n = self.prefixes.longest(tokens[: len(tokens) - 1 if most is None else most])
            if n >= SHORTEST_REUSE:
                state._adopt(tokens[:n], *self.prefixes.take(tokens, n))
        return state

    def room_for(self, n_bytes: int) -> bool:
        """Whether so many bytes are free, or would be if all that can be evicted were."""
        return n_bytes <= self.free_bytes + self.evictable_bytes

    def evict(self, n_bytes: int) -> None:
        """Evicts what was used least recently until so many bytes are free, or nothing can be evicted."""
        self._evict_until(lambda: self.free_bytes >= n_bytes or self.evictable_bytes == 0)

    def forget(self) -> None:
        """Evicts all that is retained: after an error of the machine none of it can be trusted."""
        self.prefixes.clear()
        while (point := self.points.oldest()) is not None:
            self._evict_point(point)

    def retain(self, state: SequenceState) -> None:
        """The sequence ended: what it computed may serve as somebody's prefix. Frees its slot."""
        state._make_point()
        state._publish(state._usable_length())
        state.release()

    def load(self, file: str | os.PathLike[str]) -> SequenceState | None:
        """The state that `SequenceState.save` wrote; None without a slot or room for it now.

        Raises:
            FileError: the file cannot be read.
            FormatError: the file is no saved state, or cut, or damaged.
            ParameterError: it was saved by a program with other states.
            ContextError: it has more tokens than a sequence may have here.
        """
        from clarion.runtime.states.files import SavedState  # who only runs a model starts without it

        with SavedState(file) as saved:
            saved.check(self.layout, self.context)
            if not self._slots:
                return None
            state = SequenceState(self, self._slots.pop())
            try:
                if state.make_room(saved.n_tokens):
                    state.fill(saved)
                    return state
            except BaseException:
                state.release()
                raise
        state.release()
        return None

    def _evict_until(self, is_enough: Callable[[], bool]) -> None:
        """Evicts restore points and the ends of retained prefixes, what was used least recently first."""
        while not is_enough():
            leaf, point = self.prefixes.oldest(), self.points.oldest()
            if point is not None and (leaf is None or (False, point.stamp) < age(leaf)):
                self._evict_point(point)
                continue
            assert leaf is not None
            oldest = age(leaf)
            while self.prefixes.cut(leaf) and age(leaf) == oldest and not is_enough():
                pass  # it is still the oldest: there is no need to search again

    def _evict_point(self, point: Point) -> None:
        self.points.evict(point)
        if point.node is not None:
            self.prefixes.point_is_gone(point)


class SequenceState:
    """The state of one sequence: its tokens, and what the machine keeps of them, in every kind."""

    def __init__(self, states: States, slot: int) -> None:
        """Made by `States` alone."""
        self.slot = slot
        self.tokens: list[int] = []  # those whose state is held
        self._states = states
        self._parts = [kind.part(slot) for kind in states.kinds]
        self._points: list[Point] = []  # by length; some may be evicted
        self._released = False

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def rewindable(self) -> int:
        """How many of the last tokens `rewind` can take back now, at most 16.

        At least those that were appended since the state was opened, truncated, forked or rewound, or a run
        of it was cancelled, up to 16.
        """
        return min((part.rewindable for part in self._parts), default=min(REWIND, self.length))

    def missing(self, n: int, *, alone: bool = False) -> int:
        """Bytes that `reserve(n)` needs beyond what the state has; `alone`: once nothing is retained."""
        return sum([part.missing(n, alone=alone) for part in self._parts])

    def fits(self, n: int) -> bool:
        """Whether `reserve(n)` would succeed now. It changes nothing."""
        return self._states.room_for(self.missing(n, alone=True))

    def reserve(self, n: int) -> bool:
        """Makes room for n more tokens, those of one run, where nobody else reads; False, and no change, if
        there is none.

        Evicts retained prefixes where that makes the room. The room is the state's own until it is marked or
        forked.

        Raises:
            ContextError: the sequence would have more tokens than the context.
        """
        if self.length + n > self._states.context:
            raise ContextError(
                f"a sequence of {self.length + n} tokens, the context is {self._states.context}"
            )
        if self.missing(n) == 0:
            return True
        if not self.fits(n):
            return False
        self._states._evict_until(lambda: self.missing(n) <= self._states.free_bytes)
        for part in self._parts:
            part.reserve(n)
        return True

    def append(self, tokens: Sequence[int]) -> None:
        """The machine has computed these tokens, in the room that was reserved."""
        for part in self._parts:
            part.append(len(tokens))
        self.tokens.extend(tokens)
        if self._states.points.are_made:
            self._prune()
            last = self._points[-1].length if self._points else 0
            if self._states.points.is_due(self.length, last):
                self._make_point()

    def mark(self) -> None:
        """Here a text may be taken up again: the end of a prompt, the border of a message, the end of an
        answer.

        Makes a restore point if the program needs one and there are bytes for it. Other sequences can
        continue from here at once: whole pages cost nothing, and a copy of a page less than a snapshot.
        """
        self._make_point()
        n = self._usable_length()
        self._publish(n if self._states.points.needed else n - n % self._states.grain)

    def truncate(self, n: int) -> int:
        """Goes back to the last restore point m <= n, also gives back room reserved behind it, and returns m.

        Where every kind truncates anywhere, and within `rewindable` tokens, m = n. 0 is always a restore
        point.
        """
        if n < 0:
            raise ParameterError(f"truncate: found {n}, expected at least 0")
        k = max(0, self.length - n)
        if k <= self.rewindable:
            self.rewind(k)
            return self.length
        snapshots: Sequence[Snapshot | None] = [None] * len(self._parts)
        if self._states.points.needed:
            self._prune()
            point = next((point for point in reversed(self._points) if point.length <= n), None)
            n = 0
            if point is not None:
                n, snapshots = point.length, point.snapshots
                self._states.points.use(point)
        for part, snapshot in zip(self._parts, snapshots, strict=True):
            part.truncate(n, snapshot)
        self._shorten(n)
        return n

    def rewind(self, k: int) -> None:
        """Takes back the last k tokens, exactly, without computing anything.

        Raises:
            ParameterError: k is not from 0 to `rewindable`.
        """
        if not 0 <= k <= self.rewindable:
            raise ParameterError(f"rewind: found {k}, expected 0 to {self.rewindable}")
        for part in self._parts:
            part.rewind(k)
        self._shorten(self.length - k)

    def fork(self, n: int) -> SequenceState | None:
        """Another state with the first tokens of this one, as many as `truncate(n)` would leave; None without
        a slot.

        Nothing is copied that can be shared.
        """
        if not self._states._slots:
            return None
        twin = SequenceState(self._states, self._states._slots.pop())
        for part, own in zip(twin._parts, self._parts, strict=True):
            part.fork(own)
        twin.tokens += self.tokens
        self._prune()
        twin._hold(self._points)
        twin.truncate(n)
        return twin

    def save(self, file: str | os.PathLike[str], go_on: Callable[[], None] = lambda: None) -> int:
        """Writes tokens and state to a file, all of it or nothing. Returns how many bytes that are.

        From any thread, as long as nobody else uses the state. `go_on` is called again and again, and ends
        the work by an error.

        Raises:
            FileError: it cannot be written; what was there before is untouched.
            ParameterError: `file` is no name of a file.
        """
        from clarion.runtime.states.files import write

        chunks = itertools.chain.from_iterable(part.chunks() for part in self._parts)
        return write(file, self.tokens, self._states.layout, chunks, go_on)

    def make_room(self, n: int) -> bool:
        """Takes what n tokens need that are saved in a file; False, and no change, if there is no room. The
        state is new, and may only be filled or released then."""
        states = self._states
        needed = states.layout.load_bytes(n)
        if not states.room_for(needed):
            return False
        states.evict(needed)
        for part in self._parts:
            part.make_room(n)
        return True

    def fill(self, saved: SavedState, go_on: Callable[[], None] = lambda: None) -> None:
        """Becomes what was saved, in the room that was made. From any thread, as long as nobody else uses the
        state; `go_on` as for `save`. After an error it can only be released.

        Raises:
            FileError, FormatError: the file cannot be read, or is damaged.
        """

        def read(into: memoryview) -> None:
            go_on()
            saved.read(into)

        tokens = saved.tokens()
        try:
            for part in self._parts:
                part.fill(len(tokens), read)
        except ValueError as error:
            raise FormatError(f"{saved.path}: {error}") from error
        saved.finish()
        self.tokens += tokens

    def release(self) -> None:
        """Gives everything back, also the slot. The state must not be used again."""
        assert not self._released
        self._released = True
        for part in self._parts:
            part.release()
        self._shorten(0)
        self._states._slots.append(self.slot)

    def _adopt(self, tokens: Sequence[int], path: Sequence[Spans], points: Sequence[Point]) -> None:
        """Continues a retained prefix."""
        self._hold(points)
        snapshots: Sequence[Snapshot | None] = [None] * len(self._parts)
        if self._states.points.needed:
            self._states.points.use(self._points[-1])
            snapshots = self._points[-1].snapshots
        for i, part in enumerate(self._parts):
            part.adopt([spans[i] for spans in path], len(tokens), snapshots[i])
        self.tokens += tokens

    def _usable_length(self) -> int:
        """How far others can continue it."""
        if not self._states.points.needed:
            return self.length
        self._prune()
        return self._points[-1].length if self._points else 0

    def _publish(self, n: int) -> None:
        """Retains the first n tokens."""
        if n >= SHORTEST_REUSE:
            points = [point for point in self._points if point.alive and point.length <= n]
            self._states.prefixes.insert(
                self.tokens[:n], points, lambda start, end: tuple(p.span(start, end) for p in self._parts)
            )

    def _make_point(self) -> None:
        """A restore point, if the program needs one and there are bytes for it: at the present length or,
        where tokens were taken back, at most 16 before it."""
        states, points = self._states, self._states.points
        self._prune()
        if not points.are_made:
            return
        length = self._settled()
        if length <= (self._points[-1].length if self._points else 0):
            return
        if not states.room_for(points.point_bytes):
            return
        while points.are_full:
            oldest = points.oldest()
            assert oldest is not None
            states._evict_point(oldest)
        states.evict(points.point_bytes)
        self._points.append(points.make(length, self._parts))

    def _settled(self) -> int:
        """The last length at which every part can have a snapshot, up to 16 before the present one; 0 if
        there is none."""
        n, before = self.length, -1
        while n != before:
            before = n
            n = min([part.settled(n) for part in self._parts], default=n)
            if self.length - n > REWIND:
                return 0
        return n

    def _hold(self, points: Sequence[Point]) -> None:
        self._points = sorted(points, key=lambda point: point.length)
        for point in self._points:
            self._states.points.hold(point)

    def _prune(self) -> None:
        """Forgets points that were evicted."""
        self._points = [point for point in self._points if point.alive]

    def _shorten(self, n: int) -> None:
        """Forgets the tokens and points behind length n."""
        del self.tokens[n:]
        while self._points and self._points[-1].length > n:
            self._states.points.drop(self._points.pop())
