"""Server-sent events: an answer in pieces.

    data: {...}\n\n      one for each piece of text that is ready, all that are ready in one write
    : ...\n\n            a comment, which clients ignore, where nothing came for a while
    data: [DONE]\n\n     the end

A client that does not read holds nobody back but itself: the server waits with what is written next, while
the model goes on with the others. What waits is at most the rest of the text. A client that reads nothing for
`stall_seconds` is left, its computation ends, and its connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec

from clarion.server.call import Call
from clarion.server.errors import RefusedError, StalledError, body

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies shall not collect what is to be seen at once
)
_encode: Final = msgspec.json.Encoder().encode
DONE: Final = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """One event that holds a value as JSON."""
    return b"data: " + _encode(value) + b"\n\n"


class Events:
    """The events of one answer."""

    def __init__(self, call: Call) -> None:
        self._call = call
        settings = call.server.settings
        self._stall, self._keep_alive = settings.stall_seconds, settings.keep_alive_seconds
        self._sent = time.monotonic()  # when something was sent last
        self._sending: float | None = None  # since when the client does not read

    @classmethod
    def begin(cls, call: Call) -> Events:
        """From what is sent first on, errors are events."""
        events = cls(call)
        call.fail = events._fail
        call.watch.every(min(events._stall, events._keep_alive) / 2, events._tick)
        call.begin(200, _HEADERS)
        return events

    async def send(self, events: bytes, *, last: bool = False) -> None:
        """Sends events that are encoded already. Waits while the client does not read."""
        self._sending = time.monotonic()
        await self._call.send(events, more=not last)
        self._sending, self._sent = None, time.monotonic()

    async def _fail(self, error: RefusedError) -> None:
        """An error in the place of the rest."""
        async with asyncio.timeout(self._stall):
            await self.send(b"data: " + body(error) + b"\n\n" + DONE, last=True)

    async def _tick(self) -> None:
        now = time.monotonic()
        if self._sending is not None:
            if now - self._sending >= self._stall:
                raise StalledError(f"the client has read nothing for {self._stall:g} s")
        elif now - self._sent >= self._keep_alive:
            self._sent = now
            await self._call.send(b": the model computes\n\n", more=True)
