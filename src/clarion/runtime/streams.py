"""The caller's end of a generation: pieces of text as they come, then the completion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar

from clarion.errors import CancelledError, ParameterError, PicklingError
from clarion.exiting import main_thread_has_ended, wait_for_the_end
from clarion.runtime.completion import Completion
from clarion.runtime.mail import Channel
from clarion.runtime.pieces import Piece
from clarion.runtime.request import PromptDone, Put, Result

End = Result | BaseException
Item = Piece | PromptDone | End
Prepare = Callable[[], Any]  # makes a request, which may take a while
Progress = Callable[[int, int], None]  # (tokens of the prompt that are computed, tokens of the prompt)
Hear = Callable[[int, int, int], None]  # the same of a request, after its number
T = TypeVar("T")
P = ParamSpec("P")


class Handle(Protocol):
    """A request that was submitted, as its caller sees it."""

    def cancel(self) -> None: ...


class Engine(Protocol):
    """Who serves requests, each of a kind that it knows: a model's engine, or a connection to a server.

    Of each request it puts news and pieces of text, then one end, from a thread of its own.
    """

    def submit(self, request: Any, put: Put) -> Handle: ...
    def check_caller(self) -> None:
        """Raises where the caller would wait for ever."""
        ...


class Engines(Engine, Protocol):
    """Who takes several requests at once."""

    def submit_all(self, requests: Iterable[tuple[Any, Put]]) -> Sequence[Handle]: ...


def wait(engine: Engine, request: Any, progress: Progress | None = None) -> Result:
    """Serves a request to its end. Whatever interrupts the wait cancels it."""
    items: SimpleQueue[Item] = SimpleQueue()
    handle = engine.submit(request, items.put)
    try:
        while True:
            item = items.get()
            if not _is_news(item, progress):
                return _result(item)
    except BaseException:
        handle.cancel()
        raise


async def wait_async(
    engine: Engine, prepare: Prepare, progress: Progress | None = None, *, at_once: bool = False
) -> Result:
    """`wait` for an event loop. The request is made in another thread, or `at_once` where that is quicker."""
    channel: Channel[Item] = Channel()
    handle = engine.submit(prepare() if at_once else await in_thread(prepare), channel.put)
    try:
        while True:
            item = await channel.get()
            if not _is_news(item, progress):
                return _result(item)
    except BaseException:
        handle.cancel()
        raise


def wait_all(
    engine: Engines, requests: Iterable[Any], in_line: int, hear: Hear | None = None
) -> list[Result]:
    """Serves requests to their ends; `in_line` of them are with the engine at a time, and so may share steps.

    The first error, and whatever interrupts the wait, cancels the others.
    """
    items: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    batch = _Batch(engine, requests, in_line, lambda *item: items.put(item), hear)
    try:
        while batch.submit():
            batch.take(*items.get())
    except BaseException:
        batch.cancel()
        raise
    return batch.results


async def wait_all_async(
    engine: Engines, requests: Iterable[Any], in_line: int, hear: Hear | None = None
) -> list[Result]:
    """`wait_all` for an event loop."""
    channel: Channel[tuple[int, Item]] = Channel()
    batch = _Batch(engine, requests, in_line, lambda *item: channel.put(item), hear)
    try:
        while await in_thread(batch.submit):
            batch.take(*await channel.get())
    except BaseException:
        batch.cancel()
        raise
    return batch.results


class _Batch:
    """Requests that are submitted as others end."""

    def __init__(
        self,
        engine: Engines,
        requests: Iterable[Any],
        in_line: int,
        put: Callable[[int, Item], None],
        hear: Hear | None,
    ) -> None:
        self._engine = engine
        self._waiting = enumerate(requests)
        self._in_line = in_line
        self._put = put
        self._hear = hear
        self._running: dict[int, Handle] = {}
        self._results: dict[int, Result] = {}
        self._cancelled = False

    def submit(self) -> bool:
        """Hands the next requests to the engine; False when there is nothing left to wait for."""
        some = dict(islice(self._waiting, self._in_line - len(self._running)))
        if some:
            requests = [(request, partial(self._put, number)) for number, request in some.items()]
            self._running |= zip(some, self._engine.submit_all(requests), strict=True)
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
        for handle in list(self._running.values()):
            handle.cancel()

    @property
    def results(self) -> list[Result]:
        return [self._results[number] for number in range(len(self._results))]


class _Stream(ABC):
    """What a stream is, however its items come."""

    _handle: Handle | None = None  # once it is submitted

    def __init__(self, engine: Engine, progress: Progress | None) -> None:
        self._engine = engine
        self._progress = progress
        self._over = False  # the iteration

    @abstractmethod
    def _known_end(self) -> End | None:
        """The end, if it has come."""

    def _leave(self) -> None:
        """Ends the generation, if it has not ended; the iteration is over."""
        self._over = True
        if self._handle is not None and self._known_end() is None:
            self._handle.cancel()

    def _piece(self, item: Item) -> Piece | None:
        """The item's piece of text, if it has one. An end is that of the iteration; an error is raised."""
        if isinstance(item, Piece):
            return item
        if not _is_news(item, self._progress):
            self._over = True
            _result(item)
        return None

    def __del__(self) -> None:
        self._leave()

    def __repr__(self) -> str:
        state, end = "closed" if self._over else "open", self._known_end()
        if self._over and isinstance(end, Completion):
            state = f"ended: {end.finish_reason}"
        return f"<{type(self).__name__}, {state}>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError("a stream stays in its process: pass on its text or its `completion`")


class TextStream(_Stream, Iterator[Piece]):
    """Iterates over pieces of text.

    `close`, leaving a `with` block, an interrupt and the last reference end the generation early.
    """

    def __init__(
        self, engine: Engine, request: Any, progress: Progress | None = None, model: object = None
    ) -> None:
        """`model` lives as long as the stream."""
        super().__init__(engine, progress)
        self._model = model
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._end: End | None = None
        self._handle = engine.submit(request, self._items.put)

    def __next__(self) -> Piece:
        while not self._over:
            try:
                piece = self._piece(self._next_item())
                if piece is not None:
                    return piece
            except BaseException:
                self.close()
                raise
        raise StopIteration

    @property
    def completion(self) -> Completion | None:
        """The whole result, once the iteration has ended or was left by `close`, `cancel` or `with`: what
        there is by then, pieces that were not read included. None before, and where an error ended it."""
        if not self._over:
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
        self._leave()

    def _known_end(self) -> End | None:
        return self._end

    def _next_item(self) -> Item:
        self._engine.check_caller()
        item = self._items.get()
        if not isinstance(item, Piece | PromptDone):
            self._items.put(item)  # for other threads, which may wait for it too
            self._end = item
        return item

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTextStream(_Stream, AsyncIterator[Piece]):
    """`TextStream` for an event loop. The request is made and submitted with the first piece asked for."""

    def __init__(
        self, engine: Engine, prepare: Prepare, progress: Progress | None = None, *, at_once: bool = False
    ) -> None:
        """`prepare` holds the model, which must live as long as the stream. It is called by another thread,
        or `at_once` by the loop where that is quicker."""
        super().__init__(engine, progress)
        self._prepare = prepare
        self._at_once = at_once
        self._channel: _StreamChannel | None = None

    async def __anext__(self) -> Piece:
        while not self._over:
            try:
                channel = await self._start()
                piece = self._piece(await channel.get())
                if piece is not None:
                    return piece
            except BaseException:
                self._leave()
                raise
        raise StopAsyncIteration

    async def some(self) -> list[Piece]:
        """All pieces that are here, or else the next one; none at the end. An error waits for the next
        call."""
        first = await anext(self, None)
        if first is None:
            return []
        pieces = [first]
        assert self._channel is not None
        while not self._over and isinstance(self._channel.peek(), Piece | PromptDone | Completion):
            piece = self._piece(await self._channel.get())
            if piece is not None:
                pieces.append(piece)
        return pieces

    @property
    def completion(self) -> Completion | None:
        """As that of a TextStream; of one that was left early, once `aclose` or `cancel` has returned."""
        end = self._known_end()
        return end if self._over and isinstance(end, Completion) else None

    async def cancel(self) -> Completion:
        """Ends the generation and returns what there is, pieces not yet read included.

        Raises the error that ended it, if one did.
        """
        await self._start()
        await self.aclose()
        return self.completion or _raise(self._known_end())

    async def aclose(self) -> None:
        """Ends the generation; the iteration is over."""
        self._leave()
        if self._handle is not None and self._channel is not None and self._channel.is_here():
            await self._channel.ended.wait()

    async def _start(self) -> _StreamChannel:
        if self._channel is None:
            self._channel = _StreamChannel()
            request = self._prepare() if self._at_once else await in_thread(self._prepare)
            self._handle = self._engine.submit(request, self._channel.put)
        return self._channel

    def _known_end(self) -> End | None:
        return self._channel.end if self._channel is not None else None

    async def __aenter__(self) -> AsyncTextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


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


class _StreamChannel(Channel[Item]):
    """Remembers the end, whether or not what came before it is read."""

    def __init__(self) -> None:
        super().__init__()
        import asyncio

        self.end: End | None = None
        self.ended = asyncio.Event()

    def arrive(self, item: Item) -> None:
        super().arrive(item)
        if not isinstance(item, Piece | PromptDone):
            self.end = item
            self.ended.set()


def hears(progress: object) -> bool:
    """Whether there is a function that wants to hear of progress."""
    if progress is not None and not callable(progress):
        raise ParameterError(f"progress: found {progress!r:.40}, expected a function of two numbers")
    return progress is not None


def _is_news(item: Item, progress: Progress | None) -> bool:
    """Whether the item only tells how far a prompt is. Then the caller hears of it."""
    if not isinstance(item, PromptDone):
        return False
    if progress is not None:
        progress(*item)
    return True


def _result(item: Item) -> Result:
    if isinstance(item, BaseException):
        raise item
    assert isinstance(item, Completion | int)
    return item


def _raise(end: End | None) -> NoReturn:
    if isinstance(end, BaseException):
        raise end
    raise CancelledError("the stream ended without a completion")
