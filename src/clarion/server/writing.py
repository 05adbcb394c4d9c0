"""Texts as they are written: the pieces of one or several, in the order in which they are ready.

    Job ──write──▶ [Piece, Piece], ..., [Piece, Completion] ──merge──▶ [(number, piece), ...]

The request's own task takes from the model's stream whatever is ready. Where there are several texts, each
has a task that does so, and the request's gets all of it at once. The task of a request that is cancelled
cancels these, and waits until the model has let go of their texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from clarion.conversation.reasoning import Markers, Splitter
from clarion.model import Model
from clarion.runtime.completion import Completion
from clarion.runtime.pieces import Piece
from clarion.runtime.sampling import Options
from clarion.server.tally import Count

Item = Piece | Completion
Batch = list[tuple[int, Item]]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a model may reason.

    Attributes:
        tokens: of reasoning at most.
        markers: how the template writes reasoning.
        begins_inside: whether the prompt opened it.
    """

    tokens: int
    markers: Markers
    begins_inside: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A text to be written.

    Attributes:
        ids: of the prompt.
        options: of sampling.
        whole: one piece at the end will do.
        budget: of reasoning, if there is one.
    """

    ids: Sequence[int]
    options: Options
    whole: bool = False
    budget: Budget | None = None


def write(model: Model, job: Job, started: Callable[[], None] | None = None) -> AsyncGenerator[list[Item]]:
    """The pieces of a text, as many at a time as are ready, the last ones with its completion. `started` is
    called when its prompt is computed."""
    if job.budget is not None:
        return _within_budget(model, job, job.budget, started)
    if job.whole:
        return _whole(model, job, started)
    return _pieces(model, job.ids, job.options, started)


async def _whole(model: Model, job: Job, started: Callable[[], None] | None) -> AsyncGenerator[list[Item]]:
    completion = await model.agenerate(job.ids, progress=_progress(started), **job.options)
    yield [Piece(completion.text, completion.tokens, completion.logprobs), completion]


async def _pieces(
    model: Model, ids: Sequence[int], options: Options, started: Callable[[], None] | None
) -> AsyncGenerator[list[Item]]:
    stream = model.astream(ids, progress=_progress(started), **options)
    try:
        while stream.completion is None:
            pieces = await stream.some()
            yield [*pieces, *([stream.completion] if stream.completion is not None else [])]
    finally:
        await stream.aclose()  # returns when the model has let go of the text


def _progress(started: Callable[[], None] | None) -> Callable[[int, int], None] | None:
    if started is None:
        return None
    return lambda done, total: started() if done == total else None


async def _within_budget(
    model: Model, job: Job, budget: Budget, started: Callable[[], None] | None
) -> AsyncGenerator[list[Item]]:
    """A text whose reasoning is closed when it has had its tokens, and goes on with the answer.

    Then the text is left, and continued behind the mark that closes reasoning. The prefix cache has all of it
    but the mark. Where there is no room for the mark and an answer, the reasoning has what room there is.
    """
    text = closing(budget.markers)
    mark = model.tokenize(text, add_special=False, parse_special=True)
    room = model.context - len(job.ids)
    if (most := job.options.get("max_tokens")) is not None:
        room = min(room, most)
    splitter = Splitter(budget.markers, begins_inside=budget.begins_inside)
    tokens: list[int] = []
    n_reasoning = 0
    # With no reasoning at all, the model does not even begin.
    if not (splitter.is_inside and budget.tokens <= 0 and len(mark) < room):
        async with aclosing(_one_by_one(model, job, started)) as pieces:
            async for item in pieces:
                yield [item]
                if isinstance(item, Completion):
                    return
                splitter.feed(item)
                tokens += item.tokens
                n_reasoning += len(item.tokens) if splitter.is_inside else 0
                has_room = len(tokens) + len(mark) < room
                if splitter.is_inside and n_reasoning >= budget.tokens and has_room:
                    break
    yield [Piece(text, tuple(mark), () if "logprobs" in job.options else None)]
    before = [*tokens, *mark]
    options = cast(Options, {**job.options, "max_tokens": room - len(before)})
    async with aclosing(_pieces(model, [*job.ids, *before], options, started)) as pieces:
        async for items in pieces:
            yield [
                _joined(item, before, len(job.ids)) if isinstance(item, Completion) else item
                for item in items
            ]


async def _one_by_one(model: Model, job: Job, started: Callable[[], None] | None) -> AsyncGenerator[Item]:
    """The pieces of a text that may be left after each."""
    async with aclosing(_pieces(model, job.ids, job.options, started)) as pieces:
        async for items in pieces:
            for item in items:
                yield item


def closing(markers: Markers) -> str:
    """What ends the reasoning and begins the answer."""
    if markers.harmony:
        return "<|end|><|start|>assistant<|channel|>final<|message|>"
    return f"\n{markers.close}\n\n"


def _joined(rest: Completion, before: list[int], n_prompt: int) -> Completion:
    """The completion of a text that was left and continued."""
    timings = replace(
        rest.timings,
        prompt_tokens=n_prompt,
        reused_tokens=min(rest.timings.reused_tokens, n_prompt),
        generated_tokens=rest.timings.generated_tokens + len(before),
    )
    return replace(rest, tokens=(*before, *rest.tokens), timings=timings)


async def merge(
    model: Model, jobs: Sequence[Job], count: Count, *, same_prompt: bool = False
) -> AsyncGenerator[Batch]:
    """The pieces of several texts: what is ready, with the numbers of the texts. Each ends with its
    completion. The first error ends all.

    Args:
        count: counts them.
        same_prompt: the others begin when the first one's prompt is computed, and find it in the prefix
            cache.
    """
    if len(jobs) == 1:
        async with aclosing(_counted(write(model, jobs[0]), jobs[0], count)) as written:
            async for items in written:
                yield _coalesced([(0, item) for item in items])
        return
    queue: asyncio.Queue[tuple[int, Item | BaseException]] = asyncio.Queue()
    ready = asyncio.Event()
    if not same_prompt:
        ready.set()

    async def pump(number: int, job: Job) -> None:
        try:
            if number > 0:
                await ready.wait()
            started = ready.set if number == 0 and not ready.is_set() else None
            async with aclosing(_counted(write(model, job, started), job, count)) as written:
                async for items in written:
                    ready.set()  # a prompt that was in the cache as a whole has no progress
                    for item in items:
                        queue.put_nowait((number, item))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            queue.put_nowait((number, error))

    tasks = [asyncio.create_task(pump(number, job)) for number, job in enumerate(jobs)]
    n_open = len(jobs)
    try:
        while n_open:
            found = [await queue.get()]
            while not queue.empty():
                found.append(queue.get_nowait())
            for _, item in found:
                if isinstance(item, BaseException):
                    raise item
                n_open -= isinstance(item, Completion)
            yield _coalesced(cast(Batch, found))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _counted(written: AsyncGenerator[list[Item]], job: Job, count: Count) -> AsyncGenerator[list[Item]]:
    text = count.begin(len(job.ids), whole=job.whole and job.budget is None)
    has_ended = False
    async with aclosing(written):
        try:
            async for items in written:
                for item in items:
                    if isinstance(item, Completion):
                        count.end(text, job.ids, item)
                        has_ended = True
                    elif text.n_written is not None:
                        text.n_written += len(item.tokens)
                yield items
        except BaseException as error:
            if not has_ended:  # else it was counted, and its last pieces find nobody
                count.leave(text, error)
            raise


def _coalesced(batch: Batch) -> Batch:
    """Pieces of one text that are ready together become one."""
    if len(batch) < 2:
        return batch
    pieces: dict[int, list[Piece]] = {}
    ends: Batch = []
    for number, item in batch:
        if isinstance(item, Piece):
            pieces.setdefault(number, []).append(item)
        else:
            ends.append((number, item))
    return [*((number, _one(found)) for number, found in pieces.items()), *ends]


def _one(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    logprobs: list[Any] | None = None
    if all(piece.logprobs is not None for piece in pieces):
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs or ()]
    return Piece(
        "".join(pieces),
        tuple(token for piece in pieces for token in piece.tokens),
        None if logprobs is None else tuple(logprobs),
    )
