"""What a caller hears of a generation on the way and at its end, on the fake machine and on the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import clarion
from clarion.errors import CancelledError, FileError, ParameterError
from clarion.runtime.completion import Completion, Timings
from clarion.runtime.request import Request
from clarion.runtime.streams import (
    AsyncTextStream,
    TextStream,
    _Batch,
    wait,
    wait_all,
    wait_async,
)
from tests.runtime.fakes import FakeMachine, greedy
from tests.runtime.test_engine import generate, generation, text

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=512) as model:
        yield model


def reporting(prompt: list[int], n: int, *, streams: bool = False) -> Request:
    return generation(prompt, n, streams=streams, reports=True)


# ---- progress ----------------------------------------------------------------------------------------


def test_progress_is_told_after_each_step_by_the_thread_that_waits(machine: FakeMachine) -> None:
    heard: list[tuple[int, int, int]] = []

    def hear(done: int, total: int) -> None:
        heard.append((done, total, threading.get_ident()))

    prompt = list(range(20)) * 2
    wait(machine.engine, reporting(prompt, 3), hear)
    me = threading.get_ident()
    assert heard == [(16, 40, me), (32, 40, me), (40, 40, me)]
    heard.clear()
    # A prefix that is still in the cache counts as done.
    stream = TextStream(machine.engine, reporting([*prompt, 1, 2], 3, streams=True), hear)
    next(stream)
    assert heard == [(42, 42, me)]
    assert len(list(stream)) == 2
    assert len(heard) == 1


def test_progress_in_an_event_loop(machine: FakeMachine) -> None:
    heard: list[tuple[int, int]] = []

    async def run() -> None:
        await wait_async(machine.engine, partial(reporting, [1] * 20, 2), lambda *item: heard.append(item))
        stream = AsyncTextStream(
            machine.engine, partial(reporting, [2] * 20, 2, streams=True), lambda *item: heard.append(item)
        )
        async for _ in stream:
            pass

    asyncio.run(run())
    assert heard == [(16, 20), (20, 20)] * 2


def test_an_error_in_progress_ends_the_generation(machine: FakeMachine) -> None:
    def refuse(done: int, total: int) -> None:
        raise KeyboardInterrupt

    machine.executor.gate = threading.Semaphore(1)  # a step each, or the text may end before the interrupt
    with pytest.raises(KeyboardInterrupt):
        wait(machine.engine, reporting([1] * 200, 50), refuse)
    machine.executor.gate.release()
    stream = TextStream(machine.engine, reporting([2] * 200, 50, streams=True), refuse)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert stream.cancel().finish_reason == "cancelled"
    assert list(stream) == []


def test_progress_of_the_model(model: clarion.Model) -> None:
    heard: list[tuple[int, int]] = []

    def hear(done: int, total: int) -> None:
        heard.append((done, total))

    prompt = model.tokenize("There was once a king. " * 60)
    model.generate(prompt, max_tokens=1, progress=hear)
    assert heard == [(256, len(prompt)), (len(prompt), len(prompt))]
    heard.clear()
    model.generate([PROMPT, "The king"], max_tokens=1, progress=hear)
    assert heard[-1] == (
        len(model.tokenize(PROMPT)) + len(model.tokenize("The king")),
        heard[-1][1],
    )
    assert heard[-1][0] == heard[-1][1]


# ---- what was computed -------------------------------------------------------------------------------


def cancelled_in_the_prompt(machine: FakeMachine, n_steps: int) -> Timings:
    """Of a prompt of 200 tokens, 16 in a step."""
    machine.executor.gate = threading.Semaphore(n_steps)
    stream = TextStream(machine.engine, generation([1] * 200, 50, streams=True))
    for _ in range(n_steps + 1):
        machine.executor.started.acquire()
    return stream.cancel().timings


@pytest.mark.parametrize("n_steps", [0, 1, 5])
def test_a_prompt_that_is_cancelled_counts_as_far_as_it_came(machine: FakeMachine, n_steps: int) -> None:
    timings = cancelled_in_the_prompt(machine, n_steps)
    assert (timings.prompt_tokens, timings.generated_tokens) == (16 * n_steps, 0)
    assert (timings.generation, timings.generation_rate, timings.first_token) == (0, 0, 0)
    assert (timings.prompt > 0) == (n_steps > 0)
    assert timings.prompt_rate == (16 * n_steps / timings.prompt if n_steps else 0)


def test_a_text_that_is_cancelled_in_the_line_counts_nothing() -> None:
    machine = FakeMachine(context=64, max_outputs=1)
    machine.executor.gate = threading.Semaphore(0)
    first = TextStream(machine.engine, generation([1], 50, streams=True))
    machine.executor.started.acquire()
    second = TextStream(machine.engine, generation([2], 50, streams=True))
    second.close()
    machine.executor.gate.release(1000)
    timings = second.cancel().timings
    assert (timings.prompt_tokens, timings.prompt, timings.prompt_rate) == (0, 0, 0)
    assert timings.waiting > 0
    first.close()
    machine.engine.close()


def test_a_restarted_prompt_is_counted_once() -> None:
    machine = FakeMachine(context=64, n_pages=4, max_tokens=32)
    requests = [generation([i] * 30, 33) for i in range(3)]
    for result in wait_all(machine.engine, requests, 3):
        assert isinstance(result, Completion)
        assert result.timings.prompt_tokens == 30
    machine.engine.close()


# ---- streams that are left ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "with", "cancel", "close twice", "error in with"])
def test_a_stream_that_is_left_early_has_its_completion(model: clarion.Model, how: str) -> None:
    stream = model.stream(PROMPT, ignore_eos=True, seed=3)
    read = ""
    assert stream.completion is None
    if how == "with":
        with stream:
            for piece in stream:
                read += piece
                if len(read) > 20:
                    break
            assert stream.completion is None
    elif how == "error in with":
        with pytest.raises(ZeroDivisionError), stream:
            read += next(stream) * (1 // 0)
    else:
        read += next(stream)
        stream.cancel() if how == "cancel" else stream.close()
        if how == "close twice":
            stream.close()
    completion = stream.completion
    assert completion is not None
    assert stream.completion is completion
    assert stream.cancel() is completion
    assert completion.finish_reason == "cancelled"
    assert completion.text.startswith(read)
    assert completion.text == model.detokenize(completion.tokens)
    assert completion.seed == 3
    assert list(stream) == []
    assert repr(stream) == "<TextStream, ended: cancelled>"


def test_a_stream_left_before_its_first_piece_has_one_too(model: clarion.Model) -> None:
    stream = model.stream(PROMPT, ignore_eos=True)
    stream.close()
    assert stream.completion is not None
    assert stream.completion.timings.generated_tokens == len(stream.completion.tokens)


def test_a_stream_that_has_ended_stays_as_it_is(model: clarion.Model) -> None:
    stream = model.stream(PROMPT, max_tokens=5)
    assert repr(stream) == "<TextStream, open>"
    list(stream)
    completion = stream.completion
    stream.close()
    assert stream.cancel() is stream.completion is completion
    assert completion is not None
    assert completion.finish_reason == "length"
    assert repr(stream) == "<TextStream, ended: length>"


def test_a_stream_keeps_its_completion_when_the_model_closes() -> None:
    model = clarion.load(context=128)
    stream = model.stream(PROMPT, ignore_eos=True)
    next(stream)
    stream.close()
    model.close()
    assert stream.completion is not None
    assert stream.completion.finish_reason == "cancelled"


def test_an_error_is_raised_once_and_by_cancel(machine: FakeMachine) -> None:
    machine.executor.gate = threading.Semaphore(1)
    stream = TextStream(machine.engine, generation([1], 50, streams=True))
    next(stream)
    machine.damage = FileError("the file changed")
    machine.executor.gate.release()
    with pytest.raises(FileError):
        list(stream)
    assert list(stream) == []
    assert stream.completion is None
    for _ in range(2):
        with pytest.raises(FileError):
            stream.cancel()


def test_one_thread_may_end_what_another_reads(machine: FakeMachine) -> None:
    machine.executor.gate = threading.Semaphore(2)  # two steps, and then until it is cancelled
    stream = TextStream(machine.engine, generation([1], machine.states.context - 1, streams=True))
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(stream))
    reader.start()
    completion = stream.cancel()
    reader.join(10)
    assert not reader.is_alive()
    assert completion.text.startswith("".join(read))


def test_an_interrupt_ends_the_stream(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.executor.gate = threading.Semaphore(2)  # two steps, and then until it is cancelled
    stream = TextStream(machine.engine, generation([1], machine.states.context - 1, streams=True))
    next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(machine.engine, "check_caller", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    assert list(stream) == []
    assert stream.completion is not None
    assert stream.completion.finish_reason == "cancelled"


# ---- in event loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["aclose", "with", "cancel"])
def test_an_async_stream_that_is_left_early_has_its_completion(model: clarion.Model, how: str) -> None:
    async def run() -> None:
        stream = model.astream(PROMPT, ignore_eos=True)
        assert stream.completion is None
        if how == "with":
            async with stream:
                async for piece in stream:
                    read = piece
                    break
        else:
            read = await anext(stream)
            completion = await (stream.cancel() if how == "cancel" else stream.aclose())
            assert completion is (stream.completion if how == "cancel" else None)
        assert stream.completion is not None
        assert stream.completion.finish_reason == "cancelled"
        assert stream.completion.text.startswith(read)
        assert await stream.cancel() is stream.completion
        assert [piece async for piece in stream] == []
        assert repr(stream) == "<AsyncTextStream, ended: cancelled>"

    asyncio.run(run())


def test_async_streams_that_were_never_read(model: clarion.Model) -> None:
    async def run() -> None:
        stream = model.astream(PROMPT, ignore_eos=True)
        assert (await stream.cancel()).finish_reason == "cancelled"
        stream = model.astream(PROMPT, ignore_eos=True)
        await stream.aclose()
        assert [piece async for piece in stream] == []
        assert stream.completion is None
        with pytest.raises(ParameterError, match="top_p"):
            await model.astream(PROMPT, top_p=2.0).cancel()

    asyncio.run(run())


def test_the_completion_of_an_async_stream_waits_until_its_text_is_read(machine: FakeMachine) -> None:
    async def run() -> None:
        stream = AsyncTextStream(machine.engine, partial(generation, [1], 5, streams=True))
        pieces = [await anext(stream)]
        while machine.executor.computed < 5:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert stream.completion is None
        pieces += [piece async for piece in stream]
        assert "".join(pieces) == text(greedy([1], 5))
        assert stream.completion is not None

    asyncio.run(run())


def test_a_cancelled_task_leaves_a_completion(model: clarion.Model) -> None:
    async def run() -> Any:
        stream = model.astream(PROMPT, ignore_eos=True)

        async def read() -> None:
            async for _ in stream:
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        assert stream.completion is not None
        assert stream.completion.finish_reason == "cancelled"

    asyncio.run(run())


def test_a_stream_can_be_closed_by_another_loop(model: clarion.Model) -> None:
    stream = model.astream(PROMPT, ignore_eos=True)
    asyncio.run(anext(stream))  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(stream.aclose(), 10))
    assert stream.completion is None
    assert model.generate(PROMPT, max_tokens=2, ignore_eos=True).finish_reason == "length"


def test_requests_that_are_submitted_too_late_are_cancelled_too(machine: FakeMachine) -> None:
    heard: list[Any] = []
    batch = _Batch(
        machine.engine,
        [generation([1], machine.states.context - 1)],
        1,
        lambda *item: heard.append(item),
        None,
    )
    batch.cancel()
    assert batch.submit()
    generate(machine, [2], 1)
    ((number, completion),) = heard
    assert number == 0
    assert completion.finish_reason == "cancelled"


def test_what_has_no_completion_says_so(machine: FakeMachine) -> None:
    stream = TextStream(machine.engine, generation([1], 5, streams=True))
    list(stream)
    stream._end = 3
    with pytest.raises(CancelledError, match="without a completion"):
        stream.cancel()
