"""The line before a model: so many texts at once, so many requests that wait, and the others are told when to
come back.

The event loop owns it. Who waits is a future in a list; who gives up is taken out of it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from clarion.server.errors import RefusedError

_MEMORY: Final = 0.9  # of the mean of the times for which places were held, at each new one


@dataclass(eq=False, slots=True)
class _Waiting:
    """Who waits, and for how many places."""

    n: int
    turn: asyncio.Future[None]


class Line:
    """Places for texts, given in the order in which they were asked for."""

    def __init__(self, places: int, most_waiting: int) -> None:
        """
        Args:
            places: texts at once.
            most_waiting: requests that wait at most.
        """
        self._places = places
        self._free = places
        self._most_waiting = most_waiting
        self._waiting: deque[_Waiting] = deque()
        self._mean = 1.0  # seconds for which a place is held

    @property
    def running(self) -> int:
        """Places that are taken."""
        return self._places - self._free

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, n: int = 1) -> AsyncIterator[None]:
        """Waits for the places of n texts, or for all where there are not so many, and holds them.

        Raises:
            RefusedError: 429, the line is full.
        """
        n = min(n, self._places)
        await self._enter(n)
        started = time.monotonic()
        try:
            yield
        finally:
            self._mean = _MEMORY * self._mean + (1 - _MEMORY) * (time.monotonic() - started)
            self._free += n
            self._next()

    async def _enter(self, n: int) -> None:
        if not self._waiting and n <= self._free:
            self._free -= n
            return
        if len(self._waiting) >= self._most_waiting:  # some of them may be leaving just now
            self._waiting = deque(each for each in self._waiting if not each.turn.done())
        if len(self._waiting) >= self._most_waiting:
            raise self._full()
        waiting = _Waiting(n, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.turn
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._next()  # whoever stands behind may need fewer places
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self._free += n  # its turn came while it left
                self._next()
            raise

    def _next(self) -> None:
        """Lets the first ones in, as far as there are places."""
        while self._waiting and self._waiting[0].n <= self._free:
            first = self._waiting.popleft()
            if not first.turn.done():  # else it leaves just now, and takes nothing
                self._free -= first.n
                first.turn.set_result(None)

    def _full(self) -> RefusedError:
        seconds = max(1, math.ceil(self._mean * (len(self._waiting) + 1) / self._places))
        return RefusedError(
            429,
            f"the server has as many requests as it takes: {self.running} texts are computed and "
            f"{len(self._waiting)} requests wait; try again in {seconds} s",
            code="queue_full",
            headers={"retry-after": str(seconds)},
        )
