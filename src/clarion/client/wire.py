"""One thread with an event loop that does all of a connection's network.

    submit(job, put) ─▶ a task of the loop ─▶ put(piece), put(piece), ..., put(end)

To those who wait it is what an engine is: `clarion.runtime.streams` serves both. So threads and event loops
of any number share one pool of HTTP connections, which belong to this loop alone, and nobody else touches
them. Cancelling a job cancels its task, and that closes its HTTP connection: the server hears of it, and
computes no further. Each job that was submitted puts exactly one end.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from clarion.client.http import Http
from clarion.errors import ClarionError, ClosedError
from clarion.exiting import Background
from clarion.runtime.request import Put, Result


class Job(Protocol):
    """A request to a server."""

    async def serve(self, http: Http, put: Put) -> Result:
        """Puts news and pieces as they come; gives the result."""
        ...

    def left(self) -> Result | ClarionError:
        """The end where it was cancelled."""
        ...


class Handle:
    """A job that was submitted. `start` and `stop` are called by the loop."""

    def __init__(self, wire: Wire, job: Job, put: Put) -> None:
        self._wire = wire
        self._job = job
        self._put = put
        self._task: asyncio.Task[Result] | None = None

    def cancel(self) -> None:
        """Ends it, from any thread."""
        self._wire.call(self.stop)

    def start(self) -> None:
        if self._wire.is_closed:
            self._put(ClosedError("the connection is closed"))
            return
        self._task = asyncio.get_running_loop().create_task(self._job.serve(self._wire.http, self._put))
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Result]) -> None:
        if not task.cancelled():
            self._put(task.exception() or task.result())
        elif self._wire.is_closed:
            self._put(ClosedError("the connection is closed"))
        else:
            self._put(self._job.left())


class Wire:
    """The thread, its loop, and the HTTP connections."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.is_closed = False
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = Background(self._run, name="clarion-connection")
        self._thread.start()

    def submit(self, job: Job, put: Put) -> Handle:
        """Sends a request.

        Raises:
            ClosedError: after `close`, or in a process forked from the one that is connected.
        """
        self.check_caller()
        handle = Handle(self, job, put)
        with self._lock:
            if self.is_closed:
                raise ClosedError("the connection is closed")
            self._loop.call_soon_threadsafe(handle.start)
        return handle

    def check_caller(self) -> None:
        """
        Raises:
            ClosedError: in a forked process: the thread has stayed behind.
        """
        if os.getpid() != self._process:
            raise ClosedError("the connection belongs to another process; connect again after a fork")

    def call(self, function: Callable[[], None]) -> None:
        """Lets the loop call a function, unless it has ended."""
        if os.getpid() == self._process:
            with suppress(RuntimeError):  # the loop is closed: nothing is under way
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Ends what is under way, with a ClosedError for who waits for it, and closes all connections."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self.is_closed:
                self.is_closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.http.close()
