"""Who computes how many tokens next: a policy on plain data.

It knows requests by number only. It has no thread, no clock and no machine, and touches no memory: whoever
runs it (`engine.py`, or a test) does what it says, and tells it what came of that. It owns the line of those
who wait and the list of those who run, both in the order in which the requests arrived.

The policy:

- First come, first served. The first in line is admitted when there is room for all of its tokens besides
  what the running ones were promised, or when nobody runs.
- Texts before prompts: a text takes one token of a step, which is cheap, and somebody reads along. Prompts
  share what is left, the oldest first.
- Where bytes run out, the one that came last gives everything back and goes to the front of the line. The
  oldest never does. So the oldest ends, whatever else happens, and then the next one is the oldest: nobody
  starves. What somebody else works on, as a state that is being written to a file, is passed over, and ends
  by itself: who finds nobody else gives its own place up, and waits.
- Whoever waits costs nothing: the first in line is not looked at again until bytes were given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

Fits = Callable[[int], bool]  # whether there is room for so many bytes, if nothing else takes any


class Work(NamedTuple):
    """What a running request wants to compute next.

    Attributes:
        left: tokens that can be computed, one after the other; 0: it waits for somebody.
        unwanted: so many of these tokens need no row of outputs; each of those that follow needs one.
        missing: the bytes that n more tokens need beyond what the request holds.
        held: somebody else works on what it holds, so it cannot be given back now. It will be.
    """

    left: int
    unwanted: int
    missing: Callable[[int], int]
    held: bool = False


class Share(NamedTuple):
    """A request's part of a step: its next `tokens`, the last `outputs` of which have rows of outputs."""

    id: int
    tokens: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Step:
    """What is computed together; nothing, where everybody waits for somebody.

    `missing`: the bytes that all shares need beyond what their requests hold.
    """

    shares: tuple[Share, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class Preempt:
    """A request gives back all that it holds and waits again. Then `next` is asked again."""

    id: int


class Scheduler:
    """The policy, with the line and the running requests."""

    def __init__(self, *, max_tokens: int, max_outputs: int, max_running: int) -> None:
        """At most so many tokens and rows of outputs in a step, and requests that run at a time.

        A text takes a token and a row of each step: `max_running` is at most as large as the others.
        """
        assert 0 < max_running <= max_outputs <= max_tokens
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self._max_running = max_running
        self._waiting: deque[int] = deque()
        self._running: list[int] = []
        self._refused = False  # the first in line found no room, and nothing was given back since

    @property
    def running(self) -> tuple[int, ...]:
        """Who runs, the oldest first."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Who waits, the oldest first."""
        return tuple(self._waiting)

    @property
    def n_running(self) -> int:
        """How many run; from any thread."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """How many wait; from any thread."""
        return len(self._waiting)

    # ---- the line -----------------------------------------------------------------------------------------

    def arrive(self, id: int) -> None:
        """A request waits, behind all others."""
        self._waiting.append(id)

    def first(self) -> int | None:
        """The first in line, where it makes sense to ask for its admission."""
        if not self._waiting or self._refused or len(self._running) == self._max_running:
            return None
        return self._waiting[0]

    def admit(self, missing: int, describe: Callable[[int], Work], fits: Fits) -> bool:
        """Whether the first in line runs from now on.

        `missing`: the bytes that all of its tokens need; `describe`: the work of each one that runs.
        """
        if self._running:
            promised = sum(work.missing(work.left) for work in map(describe, self._running))
            if not fits(promised + missing):
                self._refused = True
                return False
        self._running.append(self._waiting.popleft())
        return True

    def leave(self, id: int) -> None:
        """A request has ended, and gave back what it held."""
        self._refused = False
        if id in self._running:
            self._running.remove(id)
        else:
            self._waiting.remove(id)

    def preempt(self, id: int) -> None:
        """A running request gave back what it held and is the first in line."""
        self._refused = False
        self._running.remove(id)
        self._waiting.appendleft(id)

    # ---- the step -----------------------------------------------------------------------------------------

    def next(self, describe: Callable[[int], Work], fits: Fits) -> Step | Preempt:
        """The next step, or what has to happen before there is one. It changes nothing."""
        tokens, outputs, missing = self._max_tokens, self._max_outputs, 0
        shares = []
        for id, work in self._in_turn(describe):
            n = min(work.left, tokens, work.unwanted + outputs)
            if n <= 0:
                continue
            needed = missing + work.missing(n)
            if needed > missing and not fits(needed):
                return Preempt(next(last for last in reversed(self._running) if not describe(last).held))
            rows = max(n - work.unwanted, 0)
            shares.append(Share(id, n, rows))
            tokens, outputs, missing = tokens - n, outputs - rows, needed
        return Step(tuple(shares), missing)

    def _in_turn(self, describe: Callable[[int], Work]) -> Iterator[tuple[int, Work]]:
        """Those that run: the texts, which compute a single token, and then the prompts."""
        prompts = []
        for id in self._running:
            work = describe(id)
            if work.left > 1:
                prompts.append((id, work))
            else:
                yield id, work
        yield from prompts
