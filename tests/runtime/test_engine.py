"""The engine on a fake machine whose logits depend on every token that its pages hold."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.errors import ClosedError, FileError, ModelError, ParameterError
from clarion.runtime.completion import Completion
from clarion.runtime.request import Generate, Request, Score
from clarion.runtime.sampling import Options, Parameters
from clarion.runtime.states.states import States
from clarion.runtime.streams import AsyncTextStream, TextStream, wait, wait_all, wait_async
from tests.runtime.fakes import FakeMachine, V, greedy, next_logits


class Letters:
    """Token i is the i-th letter from a on."""

    def feed(self, token: int) -> str:
        return chr(ord("a") + token)

    def finish(self) -> str:
        return ""


def text(tokens: list[int]) -> str:
    return "".join(map(Letters().feed, tokens))


class Alphabet:
    """Has a decoder for each text."""

    def stream(self) -> Letters:
        return Letters()


def generation(
    prompt: list[int],
    n: int,
    *,
    end_tokens: tuple[int, ...] = (),
    streams: bool = False,
    reports: bool = False,
    name: str = "",
    alphabet: Any = None,
    **options: Any,
) -> Request:
    parsed: Options = {"greedy": True, "seed": 0, **options}  # type: ignore[typeddict-item]
    generate = Generate(
        Parameters.parse(parsed),
        room=n,
        end_tokens=frozenset(end_tokens),
        detokenizer=alphabet or Alphabet(),
        streams=streams,
        reports=reports,
        name=name,
    )
    return Request(tuple(prompt), generate)


def generate(machine: FakeMachine, prompt: list[int], n: int, **options: Any) -> Completion:
    result = wait(machine.engine, generation(prompt, n, **options))
    assert isinstance(result, Completion)
    return result


def test_generates_what_the_model_says(machine: FakeMachine) -> None:
    prompt = list(range(20)) * 5
    result = generate(machine, prompt, 100)
    assert list(result.tokens) == greedy(prompt, 100)
    assert result.text == text(greedy(prompt, 100))
    assert result.finish_reason == "length"
    assert machine.executor.batches[:7] == [(16, 1)] * 6 + [(4, 1)]
    assert machine.executor.batches[7:] == [(1, 1)] * 99
    assert machine.checks == len(machine.executor.batches)


def test_timings_count_tokens(machine: FakeMachine) -> None:
    timings = generate(machine, [1, 2, 3], 4).timings
    assert (timings.prompt_tokens, timings.reused_tokens, timings.generated_tokens) == (3, 0, 4)
    assert timings.prompt > 0
    assert timings.generation > 0
    assert timings.prompt_rate == 3 / timings.prompt
    assert timings.generation_rate == 3 / timings.generation


def test_ten_threads_get_what_each_gets_alone(machine: FakeMachine) -> None:
    prompts = [[i] * (i + 1) + list(range(i, i + 9)) for i in range(10)]
    with ThreadPoolExecutor(10) as threads:
        results = list(threads.map(lambda prompt: generate(machine, prompt, 30), prompts))
    assert [list(result.tokens) for result in results] == [greedy(prompt, 30) for prompt in prompts]
    assert max(n for _, n in machine.executor.batches) > 1


def test_texts_go_on_while_a_prompt_is_computed() -> None:
    machine = FakeMachine(context=512)
    machine.executor.gate = threading.Semaphore(3)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(generate, machine, [1], 20)
        for _ in range(4):
            machine.executor.started.acquire()
        second = threads.submit(generate, machine, [2] * 100, 5)
        while not machine.engine._arrivals:  # it stands in line while the fourth run waits at the gate
            pass
        for _ in range(40):
            machine.executor.gate.release()
        assert list(first.result().tokens) == greedy([1], 20)
        assert list(second.result().tokens) == greedy([2] * 100, 5)
    assert machine.executor.batches[4:10] == [(16, 2)] * 6
    machine.engine.close()


def test_pages_run_out_and_everybody_still_gets_the_right_text() -> None:
    # Four pages for six sequences of three pages each.
    machine = FakeMachine(context=256, n_pages=4)
    prompts = [[i] * 40 for i in range(6)]
    results = wait_all(machine.engine, [generation(prompt, 120) for prompt in prompts], 6)
    assert [list(result.tokens) for result in results] == [greedy(prompt, 120) for prompt in prompts]
    assert machine.executor.computed > 6 * 159  # somebody was computed again
    machine.engine.close()


def test_a_sequence_may_fill_all_pages() -> None:
    machine = FakeMachine(context=128)
    assert list(generate(machine, [1] * 100, 28).tokens) == greedy([1] * 100, 28)
    assert list(generate(machine, [1] * 100, 28).tokens) == greedy([1] * 100, 28)
    machine.engine.close()


def test_prefixes_of_finished_texts_are_not_computed_again(machine: FakeMachine) -> None:
    first = generate(machine, [3] * 70, 10)
    longer = [3] * 70 + list(first.tokens) + [5, 6]
    before = machine.executor.computed
    second = generate(machine, longer, 1)
    # The last token drawn was never computed.
    assert second.timings.reused_tokens == 79
    assert machine.executor.computed - before == 3
    assert list(second.tokens) == greedy(longer, 1)
    assert machine.executor.copies == 1  # of the page that both end in

    branch = [3] * 70 + [7]
    third = generate(machine, branch, 5)
    assert third.timings.reused_tokens == 70
    assert list(third.tokens) == greedy(branch, 5)
    again = generate(machine, longer, 5)
    assert list(again.tokens) == greedy(longer, 5)


def test_a_waiting_prompt_that_does_not_fit_forgets_nothing_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three pages: one is a finished text, one runs, and the first in line needs three."""
    machine = FakeMachine(context=192, n_pages=3, max_tokens=64)
    searches = []
    search = States.open
    monkeypatch.setattr(
        States, "open", lambda self, tokens, **how: (searches.append(1), search(self, tokens, **how))[1]
    )
    known = list(range(30)) * 2
    generate(machine, known[:50], 5)
    machine.executor.gate = threading.Semaphore(0)
    running = TextStream(machine.engine, generation([9] * 40, 20, streams=True))
    machine.executor.gate.release()
    next(running)
    searches.clear()
    large = TextStream(machine.engine, generation([7] * 150, 1, streams=True))
    for _ in range(8):
        machine.executor.gate.release()
        next(running)
    assert len(searches) == 1  # while it waits
    large.close()
    machine.executor.gate.release(1000)
    assert "".join(running)
    assert generate(machine, known[:50], 5).timings.reused_tokens == 49
    machine.engine.close()


def test_short_prefixes_are_computed_again(machine: FakeMachine) -> None:
    generate(machine, [3] * 10, 3)
    assert generate(machine, [3] * 10, 3).timings.reused_tokens == 0


class Rows:
    """Logits as they are handed over."""

    def __init__(self, n: int) -> None:
        self.logits = np.full((n, V), np.nan, np.float32)

    def take(self, row: int, logits: memoryview) -> None:
        self.logits[row : row + len(logits)] = logits


def scoring(tokens: list[int], rows: Rows) -> Request:
    return Request(tuple(tokens), Score(len(tokens) - len(rows.logits), rows.take))


def test_logits_of_every_token(machine: FakeMachine) -> None:
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, V, 50)]
    generate(machine, tokens, 2)
    rows = Rows(50)
    assert wait(machine.engine, scoring(tokens, rows)) == 50
    np.testing.assert_array_equal(rows.logits, [next_logits(tokens[: i + 1]) for i in range(50)])


def test_texts_that_share_steps_get_their_own_logits() -> None:
    machine = FakeMachine(context=64, n_pages=3, max_tokens=32, max_outputs=20)
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, V, n).tolist() for n in (25, 1, 64, 32, 33, 7, 7, 60)]
    wanted = [Rows(max(len(text) // 2, 1)) for text in texts]
    wait_all(machine.engine, map(scoring, texts, wanted), 4)
    for text, rows in zip(texts, wanted, strict=True):
        first = len(text) - len(rows.logits)
        np.testing.assert_array_equal(
            rows.logits, [next_logits(text[: first + i + 1]) for i in range(len(rows.logits))]
        )
    assert any(n_sequences > 1 for _, n_sequences in machine.executor.batches)
    machine.engine.close()


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_error_of_one_text_ends_the_others(kind: type[BaseException]) -> None:
    machine = FakeMachine(context=64, n_pages=2, max_tokens=8)
    machine.executor.gate = threading.Semaphore(1)  # one step, and then until it is cancelled
    rows = Rows(60)

    def refuse(row: int, logits: memoryview) -> None:
        raise kind("not these")

    requests = [Request((2,) * 4, Score(0, refuse)), scoring([1] * 60, rows)]
    with pytest.raises(kind, match="not these"):
        wait_all(machine.engine, requests, 2)
    machine.executor.gate = None
    assert list(generate(machine, [3] * 10, 3).tokens) == greedy([3] * 10, 3)
    assert np.isnan(rows.logits).any()
    machine.engine.close()


def test_who_takes_logits_cannot_wait_for_the_engine(machine: FakeMachine) -> None:
    stream = TextStream(machine.engine, generation([1], machine.states.context - 1, streams=True))
    for wait_here in (
        lambda: generate(machine, [1, 2], 3),
        lambda: next(stream),
        lambda: stream.cancel(),
    ):
        with pytest.raises(ParameterError, match="take: it cannot wait"):
            wait(machine.engine, Request((2,) * 4, Score(0, lambda row, logits, work=wait_here: work())))  # type: ignore[misc]
    assert list(generate(machine, [3] * 10, 3).tokens) == greedy([3] * 10, 3)


def test_a_text_that_outgrows_the_context_is_an_error_and_no_deadlock(machine: FakeMachine) -> None:
    """Whoever submits requests sees to it that they fit; the engine says so where they do not."""
    with pytest.raises(AssertionError, match="longer than the context"):
        generate(machine, [1], machine.states.context + 1)
    assert list(generate(machine, [3] * 10, 3).tokens) == greedy([3] * 10, 3)


def test_logits_while_pages_run_out() -> None:
    machine = FakeMachine(context=192)
    tokens = [5] * 190
    with ThreadPoolExecutor(4) as threads:
        texts = [threads.submit(generate, machine, [i] * 30, 100) for i in range(3)]
        rows = Rows(len(tokens))
        scores = threads.submit(wait, machine.engine, scoring(tokens, rows))
        for i, future in enumerate(texts):
            assert list(future.result().tokens) == greedy([i] * 30, 100)
        assert scores.result() == len(tokens)
        np.testing.assert_array_equal(rows.logits, [next_logits(tokens[: i + 1]) for i in range(len(tokens))])
    machine.engine.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 80), st.integers(1, 60)), min_size=1, max_size=8))
def test_any_mix_of_requests(requests: list[tuple[int, int, int]]) -> None:
    machine = FakeMachine(context=192, max_outputs=4)
    prompts = [([token] * length, n) for token, length, n in requests]
    try:
        with ThreadPoolExecutor(len(prompts)) as threads:
            results = list(threads.map(lambda request: generate(machine, *request), prompts))
        assert [list(r.tokens) for r in results] == [greedy(*request) for request in prompts]
    finally:
        machine.engine.close()
    machine.states.forget()
    assert machine.states.used_bytes == 0
    assert machine.states.free_slots == 4


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(1, 80), st.integers(1, 60), st.integers(-1, 20), st.booleans()
        ),
        min_size=1,
        max_size=8,
    )
)
def test_cancelling_at_any_point_frees_everything(requests: list[tuple[int, int, int, int, bool]]) -> None:
    """Each is left after so many pieces of its text, if it has them; -1: before its first step. Some may stop
    by a string."""
    machine = FakeMachine(context=192, max_outputs=4)

    def read(token: int, length: int, n: int, pieces: int, may_stop: bool) -> None:
        stop = ["?"] if may_stop else []
        stream = TextStream(machine.engine, generation([token] * length, n, streams=True, stop=stop))
        for _ in range(pieces):
            next(stream, None)
        tokens = stream.cancel().tokens
        assert list(tokens) == greedy([token] * length, len(tokens))

    try:
        with ThreadPoolExecutor(len(requests)) as threads:
            for ended in [threads.submit(read, *request) for request in requests]:
                ended.result()
        generate(machine, [5], 1)  # afterwards the engine has heard of every end
        assert machine.engine._tasks == {}
    finally:
        machine.engine.close()
    machine.states.forget()
    assert machine.states.used_bytes == 0
    assert machine.states.free_slots == 4


# ---- ends -----------------------------------------------------------------------------------------


def test_end_tokens_and_stop_tokens_are_not_part_of_the_text(machine: FakeMachine) -> None:
    expected = greedy([1, 2], 30)
    end = expected[7]
    n = expected.index(end)
    by_model = generate(machine, [1, 2], 30, end_tokens=(end,))
    by_caller = generate(machine, [1, 2], 30, stop=[end])
    for result in (by_model, by_caller):
        assert list(result.tokens) == expected[:n]
        assert result.text == text(expected[:n])
        assert (result.finish_reason, result.stopped_by) == ("stop", end)
        assert result.timings.generated_tokens == n + 1


def test_stop_strings_across_tokens(machine: FakeMachine) -> None:
    expected = text(greedy([1, 2], 30))
    stop = expected[10:13]
    result = generate(machine, [1, 2], 30, stop=["nothing like this", stop])
    assert result.text == expected[: expected.index(stop)]
    assert (result.finish_reason, result.stopped_by) == ("stop", stop)
    assert text(list(result.tokens)) == expected[: expected.index(stop) + 3]


def test_a_held_back_beginning_of_a_stop_string_comes_at_the_end(machine: FakeMachine) -> None:
    expected = text(greedy([1, 2], 10))
    result = generate(machine, [1, 2], 10, stop=[expected[-2:] + "?"])
    assert result.text == expected
    assert result.finish_reason == "length"


def test_log_probabilities(machine: FakeMachine) -> None:
    result = generate(machine, [4], 5, logprobs=3, logit_bias={0: -np.inf}, temperature=2.0)
    assert result.logprobs is not None
    history = [4]
    for token, entry in zip(result.tokens, result.logprobs, strict=True):
        x = next_logits(history).astype(np.float64)
        expected = x - np.log(np.exp(x).sum())
        assert entry.token == token
        assert entry.logprob == pytest.approx(expected[token])
        assert [i for i, _ in entry.top] == np.argsort(-x, kind="stable")[:3].tolist()
        assert [value for _, value in entry.top] == pytest.approx(sorted(expected)[:-4:-1])
        history.append(token)


def test_a_seed_draws_the_same_text_whoever_else_is_drawing(machine: FakeMachine) -> None:
    options = {"greedy": False, "temperature": 2.0, "seed": 42}
    alone = generate(machine, [1], 30, **options)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda _: generate(machine, [1], 30, **options), range(8)))
    assert {result.tokens for result in together} == {alone.tokens}
    assert alone.seed == 42
    assert generate(machine, [1], 30, **{**options, "seed": 43}).tokens != alone.tokens


# ---- streams and cancellation ---------------------------------------------------------------------


def test_stream(machine: FakeMachine) -> None:
    stream = TextStream(machine.engine, generation([1], 20, streams=True))
    pieces = list(stream)
    assert "".join(pieces) == text(greedy([1], 20))
    assert len(pieces) == 20
    assert stream.completion is not None
    assert stream.completion.text == "".join(pieces)
    assert list(stream) == []


def test_cancelling_a_stream_ends_the_run_in_progress(machine: FakeMachine) -> None:
    machine.executor.gate = threading.Semaphore(3)
    stream = TextStream(machine.engine, generation([1], 50, streams=True))
    pieces = [next(stream) for _ in range(3)]
    machine.executor.started.acquire()
    completion = stream.cancel()
    assert completion.finish_reason == "cancelled"
    assert completion.text == "".join(pieces)
    assert len(machine.executor.batches) == 3
    machine.executor.gate = None
    assert list(generate(machine, [2], 5).tokens) == greedy([2], 5)


def test_cancelling_one_of_two_leaves_the_other_alone(machine: FakeMachine) -> None:
    machine.executor.gate = threading.Semaphore(5)
    stream = TextStream(machine.engine, generation([1], 200, streams=True))
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(generate, machine, [2], 100)
        next(stream)
        stream.close()
        machine.executor.gate.release(200)
        assert list(other.result().tokens) == greedy([2], 100)
    assert list(stream) == []


@pytest.mark.parametrize("how", ["close", "with", "last reference"])
def test_a_stream_that_is_left_early_stops_computing(machine: FakeMachine, how: str) -> None:
    machine.executor.gate = threading.Semaphore(0)
    stream = TextStream(machine.engine, generation([1], 100, streams=True))
    machine.executor.started.acquire()
    if how == "close":
        stream.close()
    elif how == "with":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    machine.executor.gate = None
    generate(machine, [2], 1)
    assert machine.executor.batches == [(1, 1)]


def test_an_interrupted_wait_cancels(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(SimpleQueue):  # type: ignore[type-arg]
        def get(self) -> Any:
            machine.executor.started.acquire()
            raise KeyboardInterrupt

    monkeypatch.setattr("clarion.runtime.streams.SimpleQueue", Interrupted)
    machine.executor.gate = threading.Semaphore(0)
    with pytest.raises(KeyboardInterrupt):
        generate(machine, [1], 100)
    monkeypatch.undo()
    machine.executor.gate = None
    generate(machine, [2], 1)
    assert machine.executor.batches == [(1, 1)]


def test_async(machine: FakeMachine) -> None:
    async def run() -> None:
        results = await asyncio.gather(
            *(wait_async(machine.engine, partial(generation, [i], 20)) for i in range(5)),
        )
        for i, result in enumerate(results):
            assert isinstance(result, Completion)
            assert list(result.tokens) == greedy([i], 20)
        stream = AsyncTextStream(machine.engine, partial(generation, [1], 20, streams=True))
        assert "".join([piece async for piece in stream]) == text(greedy([1], 20))
        assert stream.completion is not None

    asyncio.run(run())


def test_async_cancellation(machine: FakeMachine) -> None:
    machine.executor.gate = threading.Semaphore(0)

    async def run() -> None:
        task = asyncio.create_task(wait_async(machine.engine, partial(generation, [1], 100)))
        await asyncio.to_thread(machine.executor.started.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with AsyncTextStream(machine.engine, partial(generation, [2], 100, streams=True)) as stream:
            task = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
            await asyncio.to_thread(machine.executor.started.acquire)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert machine.executor.batches == []
    machine.executor.gate = None
    assert list(generate(machine, [3], 5).tokens) == greedy([3], 5)


def test_a_loop_that_is_gone_does_not_hurt_the_engine(machine: FakeMachine) -> None:
    loop = asyncio.new_event_loop()
    stream = AsyncTextStream(machine.engine, partial(generation, [1], 20, streams=True))
    loop.run_until_complete(anext(stream))
    loop.close()
    assert list(generate(machine, [3], 5).tokens) == greedy([3], 5)


# ---- errors ---------------------------------------------------------------------------------------


def test_bad_logits_end_one_request_with_an_error(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(history: list[int]) -> np.ndarray:
        logits = next_logits(history)
        return np.full_like(logits, np.nan) if history[0] == 1 else logits

    monkeypatch.setattr("tests.runtime.fakes.next_logits", broken)
    with ThreadPoolExecutor(2) as threads:
        bad = threads.submit(generate, machine, [1] * 5, 10)
        good = threads.submit(generate, machine, [2] * 5, 10)
        with pytest.raises(ModelError, match="position 5: the logit of token 0 is NaN"):
            bad.result()
        assert list(good.result().tokens) == greedy([2] * 5, 10)


def test_a_file_that_changes_while_it_is_used_is_an_error_for_everybody(machine: FakeMachine) -> None:
    machine.damage = FileError("truncated")
    with pytest.raises(FileError, match="truncated"):
        generate(machine, [1], 10)
    machine.damage = None
    assert list(generate(machine, [1], 10).tokens) == greedy([1], 10)


def test_a_failing_run_reaches_the_caller(machine: FakeMachine) -> None:
    machine.executor.fail = MemoryError("no")
    with pytest.raises(MemoryError):
        generate(machine, [1], 10)
    machine.executor.fail = None
    assert list(generate(machine, [1], 10).tokens) == greedy([1], 10)


def test_close_ends_what_runs_and_what_waits() -> None:
    machine = FakeMachine(context=64, max_outputs=2)
    machine.executor.gate = threading.Semaphore(0)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(generate, machine, [i], 60) for i in range(4)]
        machine.executor.started.acquire()
        machine.engine.close()
        for future in futures:
            with pytest.raises(ClosedError):
                future.result()
    with pytest.raises(ClosedError, match="the model is closed"):
        generate(machine, [1], 1)
    machine.engine.close()


def test_a_forked_process_is_told_so(machine: FakeMachine) -> None:
    child = os.fork()
    if child == 0:
        try:
            generate(machine, [1], 1)
        except ClosedError:
            machine.engine.close()
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
