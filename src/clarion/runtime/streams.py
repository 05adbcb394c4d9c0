"""The caller's end of a generation: pieces of text as they come, then the completion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, NoReturn, ParamSpec, TypeVar

from clarion.errors import CancelledError, PicklingError
from clarion.exiting import main_thread_has_ended, wait_for_the_end
from clarion.runtime.completion import Completion
from clarion.runtime.engine import Engine
from clarion.runtime.jobs import Job, PromptDone, Put, Result

# Imported where it is used: by then the caller has done so, and others start without it.
if TYPE_CHECKING:
    import asyncio

End = Result | Exception
Item = str | PromptDone | End
MakeJob = Callable[[Put], Job]
Progress = Callable[[int, int], None]  # (tokens of the prompt that are computed, tokens of the prompt)
Hear = Callable[[int, int, int], None]  # the same of a job, after its number
T = TypeVar("T")
P = ParamSpec("P")


def wait(engine: Engine, make_job: MakeJob, progress: Progress | None = None) -> Result:
    """Runs a job to its end. Whatever interrupts the wait cancels the job."""
    items: SimpleQueue[Item] = SimpleQueue()
    job = make_job(items.put)
    engine.submit(job)
    try:
        while True:
            item = items.get()
            if not _is_news(item, progress):
                return _result(item)
    except BaseException:
        engine.cancel(job)
        raise


async def wait_async(engine: Engine, make_job: MakeJob, progress: Progress | None = None) -> Result:
    """`wait` for an event loop."""
    channel: _LoopChannel[Item] = _LoopChannel()
    job = await in_thread(make_job, channel.put)
    engine.submit(job)
    try:
        while True:
            item = await channel.items.get()
            if not _is_news(item, progress):
                return _result(item)
    except BaseException:
        engine.cancel(job)
        raise


def wait_all(
    engine: Engine, make_jobs: Iterable[MakeJob], in_line: int, hear: Hear | None = None
) -> list[Result]:
    """Runs jobs to their ends, of which `in_line` are with the engine at a time, and so may share steps.

    The first error, and whatever interrupts the wait, cancels the others.
    """
    items: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    batch = _Batch(engine, make_jobs, in_line, lambda *item: items.put(item), hear)
    try:
        while batch.submit():
            batch.take(*items.get())
    except BaseException:
        batch.cancel()
        raise
    return batch.results


async def wait_all_async(
    engine: Engine, make_jobs: Iterable[MakeJob], in_line: int, hear: Hear | None = None
) -> list[Result]:
    """`wait_all` for an event loop."""
    channel: _LoopChannel[tuple[int, Item]] = _LoopChannel()
    batch = _Batch(engine, make_jobs, in_line, lambda *item: channel.put(item), hear)
    try:
        while await in_thread(batch.submit):
            batch.take(*await channel.items.get())
    except BaseException:
        batch.cancel()
        raise
    return batch.results


class _Batch:
    """Jobs that are made as others end."""

    def __init__(
        self,
        engine: Engine,
        make_jobs: Iterable[MakeJob],
        in_line: int,
        put: Callable[[int, Item], None],
        hear: Hear | None,
    ) -> None:
        self._engine = engine
        self._waiting = enumerate(make_jobs)
        self._in_line = in_line
        self._put = put
        self._hear = hear
        self._running: dict[int, Job] = {}
        self._results: dict[int, Result] = {}
        self._cancelled = False

    def submit(self) -> bool:
        """Hands the next jobs to the engine; False when there is nothing left to wait for."""
        some = islice(self._waiting, self._in_line - len(self._running))
        jobs = {number: make_job(partial(self._put, number)) for number, make_job in some}
        self._running |= jobs
        if jobs:
            self._engine.submit(*jobs.values())
        if self._cancelled:  # meanwhile, by the loop of a task that is gone
            self.cancel()
        return bool(self._running)

    def take(self, number: int, item: Item) -> None:
        """What came of one of them."""
        if not _is_news(item, partial(self._hear, number) if self._hear is not None else None):
            del self._running[number]
            self._results[number] = _result(item)

    def cancel(self) -> None:
        self._cancelled = True
        for job in list(self._running.values()):
            self._engine.cancel(job)

    @property
    def results(self) -> list[Result]:
        return [self._results[number] for number in range(len(self._results))]


class TextStream(Iterator[str]):
    """Iterates over pieces of text.

    `close`, leaving a `with` block, an interrupt and the last reference end the generation early.
    """

    def __init__(self, engine: Engine, make_job: MakeJob, progress: Progress | None = None) -> None:
        self._engine = engine
        self._make_job = make_job  # it holds the model, which must live as long as the stream
        self._progress = progress
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._end: End | None = None
        self._over = False  # the iteration
        self._job: Job | None = None
        job = make_job(self._items.put)
        engine.submit(job)
        self._job = job

    def __next__(self) -> str:
        while not self._over:
            try:
                item = self._next_item()
                if isinstance(item, str):
                    return item
                if not _is_news(item, self._progress):
                    self._over = True
                    _result(item)
            except BaseException:
                self.close()
                raise
        raise StopIteration

    @property
    def completion(self) -> Completion | None:
        """The whole result, once the iteration has ended or was left by `close`, `cancel` or `with`: what
        there is by then, pieces that were not read included. None before, and where an error ended it."""
        if not self._over or self._job is None:
            return None
        while self._end is None:
            self._next_item()
        return self._end if isinstance(self._end, Completion) else None

    def cancel(self) -> Completion:
        """Ends the generation and returns what there is, pieces not yet read included.

        Raises the error that ended it, if one did.
        """
        self.close()
        return self.completion or _raise(self._end)

    def close(self) -> None:
        """Ends the generation; the iteration is over."""
        self._over = True
        if self._job is not None and self._end is None:
            self._engine.cancel(self._job)

    def _next_item(self) -> Item:
        self._engine.check_process()
        item = self._items.get()
        if not isinstance(item, str | PromptDone):
            self._items.put(item)  # for other threads, which may wait for it too
            self._end = item
        return item

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TextStream, {_state(self._over, self._end)}>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError("a stream stays in its process: pass on its text or its `completion`")


class AsyncTextStream(AsyncIterator[str]):
    """`TextStream` for an event loop. The job starts with the first piece asked for."""

    def __init__(self, engine: Engine, make_job: MakeJob, progress: Progress | None = None) -> None:
        self._engine = engine
        self._make_job = make_job  # it holds the model, which must live as long as the stream
        self._progress = progress
        self._channel: _StreamChannel | None = None
        self._over = False  # the iteration
        self._job: Job | None = None

    async def __anext__(self) -> str:
        while not self._over:
            try:
                channel = await self._start()
                item = await channel.items.get()
                if isinstance(item, str):
                    return item
                if not _is_news(item, self._progress):
                    self._over = True
                    _result(item)
            except BaseException:
                self._leave()
                raise
        raise StopAsyncIteration

    @property
    def completion(self) -> Completion | None:
        """As that of a TextStream; of one that was left early, once `aclose` or `cancel` has returned."""
        end = self._channel.end if self._over and self._channel is not None else None
        return end if isinstance(end, Completion) else None

    async def cancel(self) -> Completion:
        """Ends the generation and returns what there is, pieces not yet read included.

        Raises the error that ended it, if one did.
        """
        channel = await self._start()
        await self.aclose()
        return self.completion or _raise(channel.end)

    async def aclose(self) -> None:
        """Ends the generation; the iteration is over."""
        self._leave()
        if self._job is not None and self._channel is not None and self._channel.is_here():
            await self._channel.ended.wait()

    async def _start(self) -> _StreamChannel:
        if self._channel is None:
            self._channel = _StreamChannel()
            job = await in_thread(self._make_job, self._channel.put)
            self._engine.submit(job)
            self._job = job
        return self._channel

    def _leave(self) -> None:
        self._over = True
        if self._job is not None:
            self._engine.cancel(self._job)

    async def __aenter__(self) -> AsyncTextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._leave()

    def __repr__(self) -> str:
        end = self._channel.end if self._channel is not None else None
        return f"<AsyncTextStream, {_state(self._over, end)}>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError("a stream stays in its process: pass on its text or its `completion`")


async def in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function in another thread, for an event loop."""
    import asyncio

    try:
        return await asyncio.to_thread(function, *arguments, **named)
    except RuntimeError:
        # The pool of threads ends before the daemon threads do whose loops use it.
        if main_thread_has_ended():
            wait_for_the_end()
        raise


class _LoopChannel(Generic[T]):
    """Brings items from the engine's thread into the running event loop."""

    def __init__(self) -> None:
        import asyncio

        self.items: asyncio.Queue[T] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, item: T) -> None:
        try:
            self._loop.call_soon_threadsafe(self.arrive, item)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited for the item.
            return

    def is_here(self) -> bool:
        """Whether the loop that it was made in is the one that runs; no other one is told of items."""
        import asyncio

        return self._loop is asyncio.get_running_loop()

    def arrive(self, item: T) -> None:
        """Called by the loop."""
        self.items.put_nowait(item)


class _StreamChannel(_LoopChannel[Item]):
    """Remembers the end, whether or not what came before it is read."""

    def __init__(self) -> None:
        super().__init__()
        import asyncio

        self.end: End | None = None
        self.ended = asyncio.Event()

    def arrive(self, item: Item) -> None:
        super().arrive(item)
        if not isinstance(item, str | PromptDone):
            self.end = item
            self.ended.set()


def _is_news(item: Item, progress: Progress | None) -> bool:
    """Whether the item only tells how far a prompt is. Then the caller hears of it."""
    if not isinstance(item, PromptDone):
        return False
    if progress is not None:
        progress(*item)
    return True


def _result(item: Item) -> Result:
    if isinstance(item, Exception):
        raise item
    assert isinstance(item, Completion | int)
    return item


def _raise(end: End | None) -> NoReturn:
    if isinstance(end, Exception):
        raise end
    raise CancelledError("the stream ended without a completion")


def _state(over: bool, end: End | None) -> str:
    if over and isinstance(end, Completion):
        return f"ended: {end.finish_reason}"
    return "closed" if over else "open"
