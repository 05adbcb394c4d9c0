"""From the engine's threads into event loops: one call of a loop for all that is ready, whoever waits there.

Who owns what. A `Mail`, one for each loop that waits for anything, is filled by any thread and emptied by its
loop. A `Channel` is one waiter's: `put` is for any thread, everything else for the loop that it was made in.
To call a loop costs a system call for whoever calls, which is the engine between two steps, and a turn of the
loop; so who finds the loop called already leaves it at that.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

# Imported where it is used: by then the caller has done so, and others start without it.
if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Mail:
    """Items on their way into one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[Channel[Any], Any]] = deque()
        self._is_called = False

    def post(self, channel: Channel[T], item: T) -> None:
        """Called by any thread. Items of one thread arrive in their order."""
        self._waiting.append((channel, item))
        if self._is_called:
            return
        self._is_called = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited for the item.
            self._waiting.clear()
            self._is_called = False

    def _deliver(self) -> None:
        """Called by the loop."""
        self._is_called = False  # first: whoever comes after this calls again
        for _ in range(len(self._waiting)):
            channel, item = self._waiting.popleft()
            channel.arrive(item)


# A loop's mail lives as long as its channels, which hold it.
_mails: Final[WeakValueDictionary[asyncio.AbstractEventLoop, Mail]] = WeakValueDictionary()
_finding: Final = threading.Lock()


def _mail() -> Mail:
    """That of the running loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    with _finding:
        found = _mails.get(loop)
        if found is None:
            found = _mails[loop] = Mail(loop)
        return found


class Channel(Generic[T]):
    """Brings items into the running event loop."""

    def __init__(self) -> None:
        import asyncio

        self._mail = _mail()
        self._here: deque[T] = deque()
        self._came = asyncio.Event()

    def put(self, item: T) -> None:
        """Called by any thread."""
        self._mail.post(self, item)

    def arrive(self, item: T) -> None:
        """Called by the loop."""
        self._here.append(item)
        self._came.set()

    async def get(self) -> T:
        """Waits for the next item."""
        while not self._here:
            self._came.clear()
            await self._came.wait()
        return self._here.popleft()

    def peek(self) -> T | None:
        """The next item, if it is here; it stays."""
        return self._here[0] if self._here else None

    def is_here(self) -> bool:
        """Whether the loop that it was made in is the one that runs; no other one is told of items."""
        import asyncio

        return self._mail.loop is asyncio.get_running_loop()
