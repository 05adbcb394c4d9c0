"""The caller's end of a generation: pieces of text as they come, then the completion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING

from clarion.errors import CancelledError
from clarion.runtime.completion import Completion
from clarion.runtime.engine import Engine
from clarion.runtime.jobs import Job, Put, Result

# Imported where it is used: by then the caller has done so, and others start without it.
if TYPE_CHECKING:
    import asyncio

Item = str | Result | Exception
MakeJob = Callable[[Put], Job]


def wait(engine: Engine, make_job: MakeJob) -> Result:
    """Runs a job to its end. Whatever interrupts the wait cancels the job."""
    items: SimpleQueue[Item] = SimpleQueue()
    job = make_job(items.put)
    engine.submit(job)
    try:
        return _result(items.get())
    except BaseException:
        engine.cancel(job)
        raise


def wait_all(engine: Engine, make_jobs: Iterable[MakeJob], in_line: int) -> None:
    """Runs jobs to their ends, of which `in_line` are with the engine at a time, and so may share steps.

    The first error, and whatever interrupts the wait, cancels the others.
    """
    items: SimpleQueue[tuple[int, Item]] = SimpleQueue()

    def put(number: int, item: Item) -> None:
        items.put((number, item))

    waiting = enumerate(make_jobs)
    running: dict[int, Job] = {}
    try:
        while True:
            some = islice(waiting, in_line - len(running))
            jobs = {number: make_job(partial(put, number)) for number, make_job in some}
            running |= jobs
            engine.submit(*jobs.values())
            if not running:
                return
            number, item = items.get()
            del running[number]
            _result(item)
    except BaseException:
        for job in running.values():
            engine.cancel(job)
        raise


async def wait_async(engine: Engine, make_job: MakeJob) -> Result:
    """`wait` for an event loop."""
    import asyncio

    channel = _LoopChannel()
    job = await asyncio.to_thread(make_job, channel.put)
    engine.submit(job)
    try:
        return _result(await channel.items.get())
    except BaseException:
        engine.cancel(job)
        raise


class TextStream(Iterator[str]):
    """Iterates over pieces of text. `close`, leaving a `with` block and the last reference end the job early.

    Attributes:
        completion: the whole result, once the iteration has ended.
    """

    completion: Completion | None = None

    def __init__(self, engine: Engine, make_job: MakeJob) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._engine = engine
        self._job: Job | None = None
        self._make_job = make_job  # it holds the model, which must live as long as the stream
        job = make_job(self._items.put)
        engine.submit(job)
        self._job = job

    def __next__(self) -> str:
        if self._job is None:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, str):
            return item
        self._job = None
        self.completion = _completion(item)
        raise StopIteration

    def cancel(self) -> Completion:
        """Ends the generation and returns what there is, pieces not yet read included."""
        if self._job is not None:
            self._engine.cancel(self._job)
        for _ in self:
            pass
        if self.completion is None:
            raise CancelledError("the stream ended without a completion")
        return self.completion

    def close(self) -> None:
        """Ends the generation; the iteration is over."""
        job, self._job = self._job, None
        if job is not None:
            self._engine.cancel(job)

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncTextStream(AsyncIterator[str]):
    """`TextStream` for an event loop. The job starts with the first piece asked for."""

    completion: Completion | None = None

    def __init__(self, engine: Engine, make_job: MakeJob) -> None:
        self._engine = engine
        self._job: Job | None = None
        self._make_job = make_job  # it holds the model, which must live as long as the stream
        self._fresh = True

    async def __anext__(self) -> str:
        if self._fresh:
            self._fresh = False
            self._channel = _LoopChannel()
            import asyncio

            job = await asyncio.to_thread(self._make_job, self._channel.put)
            self._engine.submit(job)
            self._job = job
        if self._job is None:
            raise StopAsyncIteration
        try:
            item = await self._channel.items.get()
        except BaseException:
            await self.aclose()
            raise
        if isinstance(item, str):
            return item
        self._job = None
        self.completion = _completion(item)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the generation; the iteration is over."""
        job, self._job, self._fresh = self._job, None, False
        if job is not None:
            self._engine.cancel(job)

    async def __aenter__(self) -> AsyncTextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._job is not None:
            self._engine.cancel(self._job)


class _LoopChannel:
    """Brings items from the engine's thread into the running event loop."""

    def __init__(self) -> None:
        import asyncio

        self.items: asyncio.Queue[Item] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, item: Item) -> None:
        try:
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited for the item.
            return


def _result(item: Item) -> Result:
    if isinstance(item, Exception):
        raise item
    assert not isinstance(item, str)
    return item


def _completion(item: Item) -> Completion:
    result = _result(item)
    assert isinstance(result, Completion)
    return result
