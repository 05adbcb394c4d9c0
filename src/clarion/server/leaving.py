"""A request whose client leaves ends, wherever it is: in the line, the template, the prompt, the text.

    async with Watch(receive, running):
        ...                                # cancelled when the client leaves

Whatever a request computes hangs on the task that answers it. A watcher beside it waits for ASGI's
`http.disconnect` and then cancels the task; streams and waits of `Model` end their computation when they are
cancelled, before the model's next step. The server ends requests in the same way when it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

from starlette.types import Receive

from clarion.errors import ClarionError
from clarion.server.errors import LeftError

Tick = Callable[[], Awaitable[None]]


class Watch:
    """Cancels the task that enters it when the client leaves, or when `end` is called.

    The task then leaves the block with the reason: `LeftError`, or what `end` was given.
    """

    def __init__(self, receive: Receive, running: set[Watch]) -> None:
        """`running`: of the server, all that are watched."""
        self._receive = receive
        self._running = running
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._reason: ClarionError | None = None
        self._is_over = False

    def every(self, seconds: float, tick: Tick) -> None:
        """From now on `tick` is called every so many seconds. An error of ours that it raises ends the
        request."""

        def start() -> None:
            self._ticking = asyncio.create_task(run())

        async def run() -> None:
            try:
                await tick()
            except ClarionError as reason:
                self.end(reason)
            else:
                self._timer = loop.call_later(seconds, start)

        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, start)

    def end(self, reason: ClarionError) -> None:
        """Ends the request, unless it has ended."""
        if self._reason is None and not self._is_over:
            self._reason = reason
            self._task.cancel()

    async def __aenter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._n_cancelled = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        self._running.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._running.discard(self)
        self._stop_watching()
        if self._reason is None:
            return
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            with suppress(asyncio.CancelledError):  # it was done, and the cancellation may be on its way
                await asyncio.sleep(0)
            self._task.uncancel()
        elif self._task.uncancel() <= self._n_cancelled:
            raise self._reason from None

    def _stop_watching(self) -> None:
        for found in (self._watcher, self._ticking, self._timer):
            if found is not None:
                found.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(LeftError("the client has left"))
