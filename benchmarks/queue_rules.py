"""The queue of items as a simulation: the rule of native/machine/pool.cpp, and others to compare it with.

Events are those of the threads: one is ready, takes an item of its lane or of another one, finishes it,
counts it among those of neighbouring lanes; who counts the last one of all begins the next operation. Items
progress as fast as their core and its share of the memory let them. A node's memory slows all items that read
there by the same factor, so its items are ordered by a clock of the node's own, which runs slower where more
is asked of it than it has.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from queue_items import Work
from queue_machines import Costs, Machine

# native/machine/pool.h
GROUP_LANES = 8

Done = Callable[[int, int, float], None]  # number of the item, thread, when


@dataclass(frozen=True, slots=True)
class Rules:
    """How the queue differs from the native one, where a rule is on.

    Attributes:
        tree: who is woken wakes two others, instead of one thread waking all.
        near: items of the same node's lanes are taken first.
        spread: where there are fewer lanes than threads, each lane's first thread is one that is near to what
            the lane reads, instead of the first threads having a lane each.
        least: seconds of work for each thread that an operation is shared out to, at least.
    """

    tree: bool = False
    near: bool = False
    spread: bool = False
    least: float = 0.0


@dataclass(slots=True)
class Outcome:
    """Of one operation: how long it took, who finished it, and since when each thread waits, from its end."""

    seconds: float
    last: int
    waits: tuple[float, ...]


@dataclass(slots=True)
class Total:
    """Of all operations.

    Attributes:
        seconds: until the last one ended.
        of: seconds of each.
    """

    seconds: float
    of: list[float] = field(default_factory=list)


class Queue:
    """The threads of one machine under some rules."""

    def __init__(self, machine: Machine, costs: Costs, rules: Rules | None = None) -> None:
        self.machine, self.costs, self.rules = machine, costs, rules or Rules()
        self._known: dict[object, Outcome] = {}

    def run(self, works: Sequence[Work], done: Done | None = None, asleep: bool = True) -> Total:
        """One batch: its operations one after the other. Thread 0 begins; the others sleep or spin.

        `done` hears of each item, in the order in which they end."""
        n = self.machine.threads
        now, last = 0.0, 0
        waits = [float("inf") if asleep else 0.0] * n  # how long each has waited
        total = Total(0.0)
        for work in works:
            if len(work.items) == 0:
                continue
            if len(work.items) == 1:
                taken = self._alone(work, last)
                if done:
                    done(0, last, now + taken)
                waits = [wait + taken for wait in waits]
            else:
                outcome = self._operation(work, now, last, waits, done)
                taken, last, waits = outcome.seconds, outcome.last, list(outcome.waits)
            now += taken
            total.of.append(taken)
        total.seconds = now
        return total

    def _alone(self, work: Work, thread: int) -> float:
        core, item = self.machine.cores[thread], work.items[0]
        seconds = self.costs.seconds(work.op, item) / core.speed
        return 13e-9 + max(seconds, item.bytes / min(core.bandwidth, self.machine.bandwidth[core.node]))

    def _operation(self, work: Work, now: float, last: int, waits: list[float], done: Done | None) -> Outcome:
        """What becomes of it depends on who publishes it and on who sleeps, and with slices on the time."""
        awake = tuple(wait < self.costs.spin for wait in waits)
        if done is not None or self.machine.slice:
            return _Operation(self, work, now, last, awake, done).outcome()
        key = id(work), last, awake
        if key not in self._known:
            self._known[key] = _Operation(self, work, 0.0, last, awake, None).outcome()
        return self._known[key]


@dataclass(slots=True)
class _Running:
    """An item in hand: it ends when the clock of its memory shows `end`; whole, it takes `takes`."""

    item: int
    clock: int
    end: float
    takes: float
    wants: float  # bytes a second


_READY, _END, _PAUSE, _RESUME = range(4)


class _Operation:
    """Items of one operation, from its publication to the count of its last item."""

    def __init__(
        self, queue: Queue, work: Work, now: float, last: int, awake: tuple[bool, ...], done: Done | None
    ) -> None:
        self._machine, self._costs, self._rules = queue.machine, queue.costs, queue.rules
        self._work, self._began, self._first, self._done = work, now, last, done
        n_items, n = len(work.items), queue.machine.threads
        self._active = n
        if self._rules.least:
            total = queue.costs.seconds(work.op, work.total)
            share = max(total, work.total.bytes / queue.machine.cores[0].bandwidth) / self._rules.least
            self._active = min(n, max(2, int(share)))
        self._lanes = min(self._active, n_items)
        self._next = [n_items * lane // self._lanes for lane in range(self._lanes + 1)]
        self._ends = self._next[1:]
        begins = self._next[: self._lanes : GROUP_LANES]
        self._left = [b - a for a, b in zip(begins, [*begins[1:], n_items], strict=True)]  # not finished
        self._unclaimed, self._unfinished = n_items, n_items
        self._lane_of: list[int] = [0] * n_items
        # When a count can be changed next, and who did last: each group's of its items, then that of groups.
        self._line_free, self._owner = [0.0] * (len(self._left) + 1), [last] * (len(self._left) + 1)
        self._events: list[tuple[float, int, int, int]] = []  # when, what, thread, generation
        nodes = len(queue.machine.bandwidth)
        self._clocks, self._rates = [0.0] * nodes, [1.0] * nodes  # of memory
        self._wanted, self._ends_of = [0.0] * nodes, [list[tuple[float, int, int]]() for _ in range(nodes)]
        self._at = now
        self._running: list[_Running | None] = [None] * n
        self._generation = [0] * n
        self._idle: list[float | None] = [None] * n  # since when
        self._paused: list[tuple[int, float]] = []  # thread, and how much of its item is left
        self._held = 0  # the item
        self._publish(awake)

    # ---- publishing

    def _publish(self, awake: tuple[bool, ...]) -> None:
        costs, first = self._costs, self._first
        at = self._began + (self._lanes + len(self._left)) * costs.store
        asleep = [t for t in range(self._active) if t != first and not awake[t]]
        woken = asleep[: len(self._work.items) - 1]
        for t in range(self._machine.threads):
            if t >= self._active and t != first:
                self._idle[t] = self._began if awake[t] else self._began - costs.spin
            elif t != first and awake[t]:
                self._push(at + self._far(t, first) * costs.handoff, _READY, t)
            elif t != first and t not in woken:
                self._idle[t] = self._began - costs.spin
        if not self._rules.tree:
            for t in woken:
                at += costs.wake_call
                self._push(at + costs.wake_latency, _READY, t)
            self._push(at, _READY, first)
            return
        waiting = [(at, first, 2)]  # who can wake others from when on, and how many
        for t in woken:
            at, by, times = heapq.heappop(waiting)
            at += costs.wake_call
            if times > 1:
                heapq.heappush(waiting, (at, by, times - 1))
            else:
                self._push(at, _READY, by)
            heapq.heappush(waiting, (at + costs.wake_latency, t, 2))
        for at, by, _ in waiting:
            self._push(at, _READY, by)

    def _far(self, a: int, b: int) -> float:
        cores = self._machine.cores
        return 1.0 if cores[a].node == cores[b].node else self._machine.far

    def _push(self, when: float, what: int, thread: int) -> None:
        heapq.heappush(self._events, (when, what, thread, self._generation[thread]))

    # ---- events

    def outcome(self) -> Outcome:
        while True:
            when, what, thread, clock = self._soonest()
            self._advance(when)
            if what == _READY:
                self._ready(thread, when)
            elif what == _END:
                if clock >= 0:
                    heapq.heappop(self._ends_of[clock])
                if self._end(thread, when):
                    return self._outcome(thread)
            elif what == _PAUSE:
                self._pause(thread, when)
            else:
                self._resume(thread, when)

    def _soonest(self) -> tuple[float, int, int, int]:
        """The next event: when, what, of which thread, and the memory whose clock says so, or -1."""
        best: tuple[float, int, int, int] | None = None
        for clock, ends in enumerate(self._ends_of):
            while ends and ends[0][2] != self._generation[ends[0][1]]:
                heapq.heappop(ends)
            if ends:
                when = self._at + max(ends[0][0] - self._clocks[clock], 0.0) / self._rates[clock]
                if best is None or when < best[0]:
                    best = when, _END, ends[0][1], clock
        while self._events and self._events[0][3] != self._generation[self._events[0][2]]:
            heapq.heappop(self._events)
        if self._events and (best is None or self._events[0][0] <= best[0]):
            when, what, thread, _ = heapq.heappop(self._events)
            return when, what, thread, -1
        assert best is not None, "items are left, and nobody will take them"
        return best

    def _advance(self, when: float) -> None:
        passed = when - self._at
        for clock, rate in enumerate(self._rates):
            self._clocks[clock] += passed * rate
        self._at = when

    def _ready(self, thread: int, when: float) -> None:
        """Takes an item, or waits."""
        off = self._off(thread, when)
        if off is not None:
            self._push(off, _READY, thread)
            return
        if self._unclaimed == 0:
            self._wait(thread, when + self._lanes * self._costs.probe)
            return
        probes = 0
        for lane in _order(self._machine, self._lanes, thread, self._rules):
            if self._next[lane] < self._ends[lane]:
                break
            probes += 1
        item = self._next[lane]
        self._next[lane] += 1
        self._unclaimed -= 1
        self._lane_of[item] = lane
        when += self._costs.take + probes * self._costs.probe
        if lane != thread:
            owner = lane if lane < self._machine.threads else 0
            when += self._far(thread, owner) * self._costs.transfer
        self._start(thread, item, 1.0, when - self._at)

    def _line(self, count: int, thread: int, when: float) -> float:
        """When the cache line of a count has come to a thread, which others want too."""
        begin = max(when, self._line_free[count])
        if self._owner[count] == thread:
            return begin
        self._line_free[count] = begin + self._far(thread, self._owner[count]) * self._costs.transfer
        self._owner[count] = thread
        return self._line_free[count]

    def _wait(self, thread: int, when: float) -> None:
        self._idle[thread] = when
        for paused, _ in self._paused:
            self._push(when + self._costs.spin + self._costs.migrate, _RESUME, paused)

    def _end(self, thread: int, when: float) -> bool:
        """Counts an item; whether it was the last one."""
        running = self._running[thread]
        assert running is not None
        self._stop(thread)
        group = self._lane_of[running.item] // GROUP_LANES
        self._left[group] -= 1
        if self._done:
            self._done(running.item, thread, when)
        when = self._line(group, thread, when)
        if self._left[group] == 0:
            when = self._line(-1, thread, when)
        self._unfinished -= 1
        if self._unfinished == 0:
            self._at = when
            return True
        self._push(when, _READY, thread)
        return False

    def _outcome(self, last: int) -> Outcome:
        end = self._at
        waits = tuple(max(end - idle, 0.0) if idle is not None else 0.0 for idle in self._idle)
        return Outcome(end - self._began, last, waits)

    # ---- items in hand

    def _start(self, thread: int, number: int, part: float, delay: float) -> None:
        """A part of an item, from now on; `delay` is what it took to get it."""
        machine, core, item = self._machine, self._machine.cores[thread], self._work.items[number]
        seconds = self._costs.seconds(self._work.op, item) / core.speed
        sibling = core.shared_with
        node = self._home(item.at)
        reads = core.bandwidth * (1.0 if core.node == node else machine.remote)
        if sibling >= 0 and self._running[sibling] is not None:
            seconds, reads = seconds * 2, reads / 2
        whole = max(seconds, item.bytes / reads, 1e-12)
        self._generation[thread] += 1
        generation = self._generation[thread]
        if item.bytes == 0:
            running = _Running(number, -1, self._at + delay + whole * part, whole, 0.0)
            heapq.heappush(self._events, (running.end, _END, thread, generation))
        else:
            wants = item.bytes / whole
            self._want(node, wants)
            end = self._clocks[node] + delay + whole * part
            running = _Running(number, node, end, whole, wants)
            heapq.heappush(self._ends_of[node], (end, thread, generation))
        new = self._running[thread] is None
        self._running[thread] = running
        off = self._next_off(thread, self._at)
        if off is not None:
            heapq.heappush(self._events, (off, _PAUSE, thread, generation))
        if new and sibling >= 0:
            self._again(sibling)

    def _left_of(self, thread: int) -> float:
        running = self._running[thread]
        assert running is not None
        shows = self._at if running.clock < 0 else self._clocks[running.clock]
        return max(running.end - shows, 0.0) / running.takes

    def _again(self, thread: int) -> None:
        """The speed of its core changed: what is left of its item takes another time."""
        running = self._running[thread]
        if running is None:
            return
        part = self._left_of(thread)
        if running.clock >= 0:
            self._want(running.clock, -running.wants)
        self._start(thread, running.item, part, 0.0)

    def _stop(self, thread: int) -> None:
        running = self._running[thread]
        assert running is not None
        if running.clock >= 0:
            self._want(running.clock, -running.wants)
        self._running[thread] = None
        self._generation[thread] += 1
        sibling = self._machine.cores[thread].shared_with
        if sibling >= 0:
            self._again(sibling)

    def _want(self, node: int, more: float) -> None:
        self._wanted[node] += more
        self._rates[node] = min(1.0, self._machine.bandwidth[node] / max(self._wanted[node], 1.0))

    def _home(self, at: float) -> int:
        """The node of the thread that reads there when one token comes."""
        if self._machine.one_node or len(self._machine.bandwidth) == 1:
            return 0
        return self._machine.cores[int(at * self._machine.threads)].node

    # ---- a core that another process has for slices of time

    def _taken(self, thread: int) -> bool:
        return self._machine.slice > 0 and thread == self._machine.threads - 1

    def _turn(self, when: float) -> tuple[float, bool]:
        """When the core last changed hands at the latest, and whether it was given away then."""
        # A time that is a turn itself counts as after it, however it was rounded.
        turn = int(when / self._machine.slice + 1e-6)
        return turn * self._machine.slice, turn % 2 == 1

    def _off(self, thread: int, when: float) -> float | None:
        """When a core that another process has comes back; None: it is there."""
        if not self._taken(thread):
            return None
        turn, off = self._turn(when)
        return turn + self._machine.slice if off else None

    def _next_off(self, thread: int, when: float) -> float | None:
        """When the core is given away next; None: it is."""
        if not self._taken(thread):
            return None
        turn, off = self._turn(when)
        return None if off else turn + self._machine.slice

    def _pause(self, thread: int, when: float) -> None:
        """The system gives the core away: the item waits for it, or until another core sleeps."""
        running = self._running[thread]
        if running is None:
            return
        part = self._left_of(thread)
        item = running.item
        self._stop(thread)
        self._paused.append((thread, part))
        self._held = item
        self._push(when + self._machine.slice, _RESUME, thread)
        sleeps = [idle + self._costs.spin for idle in self._idle if idle is not None]
        if sleeps:
            self._push(max(when, min(sleeps)) + self._costs.migrate, _RESUME, thread)

    def _resume(self, thread: int, when: float) -> None:
        _, part = self._paused.pop()
        self._start(thread, self._held, part, 0.0)


@cache
def _order(machine: Machine, lanes: int, thread: int, rules: Rules) -> tuple[int, ...]:
    """The lanes in the order in which a thread looks at them."""
    first = thread * lanes // machine.threads if rules.spread else thread
    order = [(first + i) % lanes for i in range(lanes)]
    if rules.near:
        node = machine.cores[thread].node
        order.sort(key=lambda lane: machine.cores[lane * machine.threads // lanes].node != node)
    return tuple(order)
